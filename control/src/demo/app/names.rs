//! Where to listen and how names are found on a machine without namespaces, as the environment says. In a pod with
//! addresses of its own nothing of this is set.

use anyhow::Context;
use std::net::IpAddr;
use tokio::net::TcpStream;
use weft_proxy_api::names::app_env;

/// The address to listen on, if there is but one.
pub(super) fn bind() -> Option<IpAddr> {
    std::env::var(app_env::BIND).ok()?.parse().ok()
}

/// Connects to `name:port`: by the hosts file of the pod if there is one, else as the system knows the name.
pub(super) async fn connect(target: &str) -> anyhow::Result<TcpStream> {
    let hosts =
        std::env::var_os(app_env::HOSTS_FILE).and_then(|file| std::fs::read_to_string(file).ok());
    let listed = target.rsplit_once(':').and_then(|(name, port)| {
        let ip = address(&hosts.unwrap_or_default(), name)?;
        Some((ip, port.parse::<u16>().ok()?))
    });
    let connected = match listed {
        Some(address) => TcpStream::connect(address).await,
        None => TcpStream::connect(target).await,
    };
    connected.with_context(|| format!("cannot connect to {target}"))
}

/// The first address of a name in a hosts file.
fn address(hosts: &str, name: &str) -> Option<IpAddr> {
    let lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").split_whitespace());
    lines
        .filter_map(|mut words| Some((words.next()?, words)))
        .find_map(|(ip, mut names)| {
            names
                .any(|other| other.eq_ignore_ascii_case(name))
                .then(|| ip.parse().ok())?
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_in_any_hosts_file() {
        let hosts = "# front\n127.0.0.1 localhost\n127.130.4.1 front.loom.svc Front # tally\n\n127.130.4.2 tally\n";
        let found = |name| address(hosts, name).map(|ip| ip.to_string());
        assert_eq!(found("front").as_deref(), Some("127.130.4.1"));
        assert_eq!(found("tally").as_deref(), Some("127.130.4.2"));
        assert_eq!(found("nobody"), None);
    }
}
