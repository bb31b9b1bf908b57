//! Health probes, from the node as Kubernetes sends them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::manifest::k8s::IntOrString;
use crate::manifest::workload::{Container, ContainerPort, HttpGet, Probe};

/// Times and thresholds with the defaults of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) good: u32,
    pub(crate) bad: u32,
}

impl Pace {
    pub(crate) fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<u32>, default: u32| {
            Duration::from_secs(u64::from(value.unwrap_or(default)))
        };
        Self {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            good: probe.success_threshold.unwrap_or(1).max(1),
            bad: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }
}

/// What a row of results means.
#[derive(Debug, Default)]
pub(crate) struct Streak {
    good: u32,
    bad: u32,
}

impl Streak {
    /// `Some` when a threshold is reached.
    pub(crate) fn note(&mut self, ok: bool, pace: &Pace) -> Option<bool> {
        if ok {
            self.good = self.good.saturating_add(1);
            self.bad = 0;
            (self.good >= pace.good).then_some(true)
        } else {
            self.bad = self.bad.saturating_add(1);
            self.good = 0;
            (self.bad >= pace.bad).then_some(false)
        }
    }
}

/// A probe over the network; an error says why it failed. Commands are run by the caller.
pub(crate) async fn network(
    probe: &Probe,
    container: &Container,
    pod: IpAddr,
) -> Result<(), String> {
    if let Some(get) = &probe.http_get {
        return http(get, container, pod).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let to = address(tcp.host.as_deref(), &tcp.port, container, pod)?;
        return TcpStream::connect(to)
            .await
            .map(drop)
            .map_err(|e| format!("{to}: {e}"));
    }
    if let Some(grpc) = &probe.grpc {
        // A health service that listens: enough for a machine of one's own.
        let to = SocketAddr::new(pod, grpc.port);
        return TcpStream::connect(to)
            .await
            .map(drop)
            .map_err(|e| format!("{to}: {e}"));
    }
    Ok(())
}

/// A port that can be connected to.
pub(crate) fn is_tcp(port: &ContainerPort) -> bool {
    matches!(port.protocol.as_deref(), None | Some("TCP"))
}

/// TCP addresses somebody listens on in the network namespace of a process. Looking sends nothing, so a proxy in between
/// cannot answer for the application.
pub(crate) fn listening(pid: i32) -> Vec<SocketAddr> {
    let read = |table: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default()
    };
    [read("tcp"), read("tcp6")]
        .iter()
        .flat_map(|table| listeners(table))
        .collect()
}

fn listeners(table: &str) -> Vec<SocketAddr> {
    const LISTEN: &str = "0A";
    let listener = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let (ip, port) = local.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (state == LISTEN).then_some(SocketAddr::new(kernel_ip(ip)?, port))
    };
    table.lines().skip(1).filter_map(listener).collect()
}

/// The kernel writes addresses as words of the machine's byte order.
fn kernel_ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.as_flattened().try_into().ok()?;
            Some(IpAddr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

async fn http(get: &HttpGet, container: &Container, pod: IpAddr) -> Result<(), String> {
    let to = address(get.host.as_deref(), &get.port, container, pod)?;
    if get
        .scheme
        .as_deref()
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
    {
        return TcpStream::connect(to)
            .await
            .map(drop)
            .map_err(|e| format!("{to}: {e}"));
    }
    let path = get
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut head = format!("GET {slash}{path} HTTP/1.1\r\n");
    if !get
        .http_headers
        .iter()
        .any(|h| h.name.eq_ignore_ascii_case("host"))
    {
        head.push_str(&format!("Host: {to}\r\n"));
    }
    for header in &get.http_headers {
        head.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    head.push_str("User-Agent: kube-probe/weft\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    let status = ask(to, head.as_bytes())
        .await
        .map_err(|e| format!("{to}: {e}"))?;
    match status {
        200..=399 => Ok(()),
        _ => Err(format!("{to}{slash}{path}: HTTP {status}")),
    }
}

async fn ask(to: SocketAddr, head: &[u8]) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(head).await?;
    let mut line = [0; 12];
    stream.read_exact(&mut line).await?;
    let code = std::str::from_utf8(&line)
        .ok()
        .filter(|l| l.starts_with("HTTP/1."))
        .and_then(|l| l[9..].parse().ok());
    code.ok_or_else(|| std::io::Error::other("the answer is not HTTP/1"))
}

fn address(
    host: Option<&str>,
    port: &IntOrString,
    container: &Container,
    pod: IpAddr,
) -> Result<SocketAddr, String> {
    let number = port.port().or_else(|| {
        let name = port.name()?;
        container
            .ports
            .iter()
            .find(|p| p.name.as_deref() == Some(name))
            .map(|p| p.container_port)
    });
    let number =
        number.ok_or_else(|| format!("container {} has no port {port}", container.name))?;
    let ip = match host {
        Some(host) if !host.is_empty() => host
            .parse()
            .map_err(|_| format!("probe host {host} is not an address"))?,
        _ => pod,
    };
    Ok(SocketAddr::new(ip, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_need_a_row() {
        let pace = Pace::of(&Probe {
            failure_threshold: Some(2),
            success_threshold: Some(2),
            ..Probe::default()
        });
        let mut streak = Streak::default();
        let notes = [true, false, false, true, true].map(|ok| streak.note(ok, &pace));
        assert_eq!(notes, [None, None, Some(false), None, Some(true)]);
    }

    #[test]
    fn listeners_are_read_from_the_kernel_s_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                        0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000\n\
                        1: 0100007F:D431 0100007F:1F90 01 00000000:00000000 00:00000000\n";
        assert_eq!(listeners(table), [SocketAddr::from(([0, 0, 0, 0], 8080))]);
        assert_eq!(kernel_ip("01012A7F"), Some(IpAddr::from([127, 42, 1, 1])));
        let mapped = kernel_ip("0000000000000000FFFF000001012A7F");
        assert_eq!(mapped, Some(IpAddr::from([127, 42, 1, 1])));
    }

    #[test]
    fn defaults_are_those_of_kubernetes() {
        let pace = Pace::of(&Probe::default());
        assert_eq!(
            (
                pace.period.as_secs(),
                pace.timeout.as_secs(),
                pace.good,
                pace.bad
            ),
            (10, 1, 1, 3)
        );
    }
}
