//! Settings of `weft-control`: as typed, then as meant. Every wrong value is reported, in one go.

mod webhook;

use crate::kube::connect::Settings;
use crate::smi::Groups;
use crate::state;
use clap::Parser;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::names::{self, control_env as env};
use weft_proxy_api::policy::{Access, MetricsTier};

pub use webhook::Webhook;

const DEFAULT_ADMIN: &str = "127.0.0.1:8085";
const DEFAULT_CERT_TTL: &str = "24h";
const DEFAULT_LOG: &str = "info";
/// A shorter life could end before the proxy has renewed.
const MIN_CERT_TTL: Duration = Duration::from_secs(10);
const MAX_CERT_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// The controller of Weft: reads Kubernetes and SMI objects from folders of manifests or from a Kubernetes API server and
/// tells every proxy what they mean
#[derive(Debug, Parser)]
#[command(name = "weft-control", version, max_term_width = 100)]
struct Typed {
    /// Folder with manifests, watched for changes; may be repeated, and an object in a later folder replaces the same
    /// one of an earlier folder [env: WEFT_CONTROL_DIR, separated by ':']
    #[arg(long = "dir", value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Take the objects from a Kubernetes API server instead of folders: the one of --kubeconfig, else the one that the
    /// environment or the pod's own account knows
    #[arg(long, env = env::KUBERNETES)]
    kubernetes: bool,
    /// Kubeconfig that says where the API server is; implies --kubernetes
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Namespace of the controller's own objects in Kubernetes
    #[arg(long, env = env::NAMESPACE, value_name = "NAME", default_value = names::SYSTEM_NAMESPACE)]
    namespace: String,
    /// What happens to traffic that no TrafficTarget allows: strict denies it, permissive lets it pass, audit lets it
    /// pass and counts it [default: permissive]
    #[arg(long, env = env::ACCESS, value_name = "ACCESS")]
    access: Option<String>,
    /// In how much detail proxies say their metrics: by edges, also by routes, also by endpoints. A namespace or a pod may
    /// say otherwise (annotation config.weft.mesh/metrics)
    #[arg(long, env = env::METRICS, value_name = "TIER", default_value_t, value_parser = parse_tier)]
    metrics: MetricsTier,
    /// Folder for keys and what must survive a restart [default: .weft in the first folder of manifests; with
    /// --kubernetes a Secret takes its place]
    #[arg(long, env = env::STATE, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Address of the control API, reachable by every pod [default: [::]:8086, or 0.0.0.0:8086 without IPv6]
    #[arg(long, env = env::LISTEN, value_name = "ADDR")]
    listen: Option<String>,
    /// Control API of the other controllers of this mesh, as HOST:PORT; each address that the name has is one, and this one may
    /// be among them. Who is asked about traffic asks them too. May be repeated
    #[arg(long, env = env::PEERS, value_name = "HOST:PORT", value_delimiter = ',')]
    peers: Vec<String>,
    /// Address of health, metrics and status
    #[arg(long, env = env::ADMIN_ADDR, value_name = "ADDR", default_value = DEFAULT_ADMIN)]
    admin_addr: String,
    /// Trust domain of the mesh, the first part of every identity
    #[arg(long, env = env::TRUST_DOMAIN, value_name = "NAME", default_value = names::DEFAULT_TRUST_DOMAIN)]
    trust_domain: String,
    /// Let HTTPRouteGroup and TCPRoute of spec.smi-spec.io/v1alpha1, as the first releases of SMI called it, count as those of
    /// specs.smi-spec.io
    #[arg(long, env = env::LEGACY_SPEC_GROUP)]
    legacy_spec_group: bool,
    /// Life of a workload's certificate, e.g. 24h, 90m, 20s
    #[arg(long, env = env::CERT_TTL, value_name = "TIME", default_value = DEFAULT_CERT_TTL)]
    cert_ttl: String,
    /// Log filter, e.g. info or weft_control=debug
    #[arg(long, env = env::LOG, value_name = "FILTER", default_value = DEFAULT_LOG)]
    log: String,
    #[command(flatten)]
    webhook: webhook::WebhookArgs,
}

/// Settings as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where objects come from.
    pub source: Source,
    /// How strictly permissions are applied where no annotation says otherwise.
    pub access: Access,
    /// Whether somebody chose that.
    pub access_chosen: bool,
    /// Tier of metrics where neither pod nor namespace says anything.
    pub metrics: MetricsTier,
    /// Which names of groups count.
    pub groups: Groups,
    /// Folder for keys and what must survive a restart; `None`, only with Kubernetes: its Secret.
    pub state: Option<PathBuf>,
    /// Address of the control API; `None`: port 8086 of every address.
    pub listen: Option<SocketAddr>,
    /// Other controllers of the mesh, as `HOST:PORT`.
    pub peers: Vec<String>,
    /// Address of health, metrics and status.
    pub admin: SocketAddr,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Life of a workload's certificate.
    pub cert_ttl: Duration,
    /// Log filter.
    pub log: String,
    /// The webhook, if there is one; only with Kubernetes.
    pub webhook: Option<Webhook>,
}

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Folders with manifests; never empty.
    Folders(Vec<PathBuf>),
    /// A Kubernetes API server.
    Kubernetes(Settings),
}

impl Config {
    /// From arguments (the first is the program's name) and the environment. Prints help, version or every mistake
    /// and ends the program where there is nothing to start.
    pub fn from_env() -> Self {
        let folders = std::env::var_os(env::DIR);
        Self::parse(std::env::args_os(), folders).unwrap_or_else(|error| error.exit())
    }

    /// As [`Config::from_env`], with the value of `WEFT_CONTROL_DIR` given.
    pub fn parse(
        args: impl IntoIterator<Item = OsString>,
        folders: Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let mut typed = Typed::try_parse_from(args)?;
        if typed.dirs.is_empty() && !typed.wants_kubernetes() {
            typed.dirs = folders.iter().flat_map(std::env::split_paths).collect();
        }
        typed.mean().map_err(|mistakes| {
            let command = <Typed as clap::CommandFactory>::command();
            clap::Error::raw(
                clap::error::ErrorKind::ValueValidation,
                format!("{}\n", mistakes.join("\n       ")),
            )
            .with_cmd(&command)
        })
    }
}

impl Typed {
    fn wants_kubernetes(&self) -> bool {
        self.kubernetes || self.kubeconfig.is_some()
    }

    fn mean(self) -> Result<Config, Vec<String>> {
        let mut mistakes = Vec::new();
        let mut note = |flag: &str, reason: String| mistakes.push(format!("--{flag}: {reason}"));
        let kubernetes = self.wants_kubernetes();
        match kubernetes {
            true if !self.dirs.is_empty() => note(
                "dir",
                "is not for --kubernetes: objects come from one or the other".into(),
            ),
            true => {}
            false => folders(&self.dirs)
                .into_iter()
                .for_each(|reason| note("dir", reason)),
        }
        let access = read(
            self.access.as_deref().unwrap_or("permissive"),
            "access",
            parse_access,
            &mut note,
        );
        let listen = self
            .listen
            .as_deref()
            .map(|text| read(text, "listen", parse_address, &mut note));
        for peer in &self.peers {
            read(peer, "peers", parse_peer, &mut note);
        }
        let admin = read(&self.admin_addr, "admin-addr", parse_address, &mut note);
        let trust_domain = read(
            &self.trust_domain,
            "trust-domain",
            parse_trust_domain,
            &mut note,
        );
        let cert_ttl = read(&self.cert_ttl, "cert-ttl", parse_ttl, &mut note);
        let log = read(&self.log, "log", parse_log, &mut note);
        let domain = trust_domain.as_deref().unwrap_or_default();
        let webhook = self
            .webhook
            .mean(kubernetes, &self.namespace, domain, &mut note);
        let state = self
            .state
            .or_else(|| self.dirs.first().map(|first| state::default_path(first)));
        match (
            access,
            admin,
            trust_domain,
            cert_ttl,
            log,
            mistakes.is_empty(),
        ) {
            (Some(access), Some(admin), Some(trust_domain), Some(cert_ttl), Some(log), true) => {
                let (access_chosen, listen) = (self.access.is_some(), listen.flatten());
                let source = match kubernetes {
                    false => Source::Folders(self.dirs),
                    true => Source::Kubernetes(Settings {
                        kubeconfig: self.kubeconfig,
                        context: self.context,
                        namespace: self.namespace,
                    }),
                };
                Ok(Config {
                    source,
                    access,
                    access_chosen,
                    metrics: self.metrics,
                    groups: match self.legacy_spec_group {
                        true => Groups::Legacy,
                        false => Groups::Current,
                    },
                    state,
                    listen,
                    peers: self.peers,
                    admin,
                    trust_domain,
                    cert_ttl,
                    log,
                    webhook,
                })
            }
            _ => Err(mistakes),
        }
    }
}

fn read<T>(
    text: &str,
    flag: &str,
    parse: impl Fn(&str) -> Result<T, String>,
    note: &mut impl FnMut(&str, String),
) -> Option<T> {
    parse(text)
        .map_err(|reason| note(flag, format!("{text:?} {reason}")))
        .ok()
}

fn folders(dirs: &[PathBuf]) -> Vec<String> {
    if dirs.is_empty() {
        return vec![format!(
            "at least one folder with manifests is needed (or {} set)",
            env::DIR
        )];
    }
    dirs.iter()
        .filter(|dir| !dir.is_dir())
        .map(|dir| format!("{} is not a folder", dir.display()))
        .collect()
}

fn parse_access(text: &str) -> Result<Access, String> {
    [Access::Strict, Access::Permissive, Access::Audit]
        .into_iter()
        .find(|access| access.to_string() == text)
        .ok_or_else(|| "is not strict, permissive or audit".into())
}

fn parse_tier(text: &str) -> Result<MetricsTier, String> {
    text.parse()
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "is not an address like 127.0.0.1:8086 or [::]:8086".into())
}

fn parse_peer(text: &str) -> Result<(), String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.map(|(_, port)| port.parse()) {
        Some(Ok(1_u16..)) => Ok(()),
        _ => Err("is not a name or an address with a port, like 10.0.0.7:8086".into()),
    }
}

fn parse_trust_domain(text: &str) -> Result<String, String> {
    match SpiffeId::new(text, "namespace", "account") {
        Ok(_) => Ok(text.into()),
        Err(_) => {
            Err("is not a trust domain (lower-case letters, digits, '-', '_' and '.')".into())
        }
    }
}

fn parse_log(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.into())
        .map_err(|error| format!("is not a log filter: {error}"))
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text).ok_or("is not a time like 24h, 90m or 20s")?;
    match (MIN_CERT_TTL..=MAX_CERT_TTL).contains(&ttl) {
        true => Ok(ttl),
        false => Err(format!("is not between {MIN_CERT_TTL:?} and 90d")),
    }
}

/// A whole number and a unit: `20s`, `90m`, `24h`, `7d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.then(|| number.parse().ok()).flatten()?;
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(args: &[&str], folders: Option<&str>) -> Result<Config, String> {
        let args = ["weft-control"].iter().chain(args).map(OsString::from);
        Config::parse(args, folders.map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults() {
        let config = parse(&["--dir", "/tmp", "--dir", "/"], Some("/usr")).unwrap();
        let expected = Config {
            source: Source::Folders(vec!["/tmp".into(), "/".into()]),
            access: Access::Permissive,
            access_chosen: false,
            metrics: MetricsTier::Routes,
            groups: Groups::Current,
            state: Some("/tmp/.weft".into()),
            listen: None,
            peers: vec![],
            admin: ([127, 0, 0, 1], 8085).into(),
            trust_domain: "cluster.local".into(),
            cert_ttl: Duration::from_secs(24 * 3600),
            log: "info".into(),
            webhook: None,
        };
        assert_eq!(config, expected);
        assert_eq!(
            parse(&[], Some("/usr:/")).unwrap().source,
            Source::Folders(vec!["/usr".into(), "/".into()])
        );
    }

    #[test]
    fn kubernetes_takes_the_place_of_folders() {
        let config = parse(&["--kubeconfig", "/k", "--context", "c"], Some("/tmp")).unwrap();
        let settings = Settings {
            kubeconfig: Some("/k".into()),
            context: Some("c".into()),
            namespace: names::SYSTEM_NAMESPACE.into(),
        };
        assert_eq!(config.source, Source::Kubernetes(settings));
        assert_eq!(config.state, None);
        let config = parse(&["--kubernetes", "--state", "/s"], None).unwrap();
        assert_eq!(config.state, Some("/s".into()));
        let error = parse(&["--kubernetes", "--dir", "/tmp"], None).unwrap_err();
        assert!(error.contains("--dir: is not for --kubernetes"), "{error}");
    }

    #[test]
    fn a_webhook_needs_kubernetes_and_checks_what_pods_get() {
        let on = ["--kubernetes", "--webhook-addr", "[::]:8443"];
        let config = parse(&on, None).unwrap();
        let webhook = config.webhook.unwrap();
        let expected = "weft-control.weft-system.svc.cluster.local:8086";
        assert_eq!(webhook.control_addr, expected);
        assert_eq!(webhook.ca_ttl, Duration::from_secs(365 * 24 * 3600));
        assert_eq!(webhook.metrics_api, None);
        let metrics = ["--metrics-api-addr", "127.0.0.1:8444"];
        let config = parse(&[&on[..], &metrics].concat(), None).unwrap();
        let address = config.webhook.and_then(|webhook| webhook.metrics_api);
        assert_eq!(address, Some(([127, 0, 0, 1], 8444).into()));
        let error = parse(&["--kubernetes", metrics[0], metrics[1]], None).unwrap_err();
        assert!(error.contains("needs --webhook-addr"), "{error}");
        let error = parse(&["--dir", "/", "--webhook-addr", "1.2.3.4:1"], None).unwrap_err();
        assert!(
            error.contains("--webhook-addr: is for --kubernetes only"),
            "{error}"
        );
        let key = "config.weft.mesh/proxy-cpu-request";
        for (default, part) in [
            ("x", "\"x\" is not KEY=VALUE".to_owned()),
            (
                &*format!("{key}=lots"),
                format!("--inject-default: {key}: "),
            ),
            ("a=b", "unknown key a".to_owned()),
        ] {
            let words = [&on[..], &["--inject-default", default]].concat();
            let error = parse(&words, None).unwrap_err();
            assert!(error.contains(&part), "{error}");
        }
    }

    #[test]
    fn every_mistake_is_reported_in_one_go() {
        let error = parse(
            &[
                "--dir",
                "/nowhere",
                "--access",
                "lax",
                "--listen",
                "8086",
                "--admin-addr",
                "x",
                "--trust-domain",
                "A b",
                "--cert-ttl",
                "1",
                "--log",
                "a=b=c",
            ],
            None,
        )
        .unwrap_err();
        for part in [
            "--dir: /nowhere is not a folder",
            "--access: \"lax\" is not strict, permissive or audit",
            "--listen: \"8086\" is not an address",
            "--admin-addr: \"x\"",
            "--trust-domain: \"A b\"",
            "--cert-ttl: \"1\" is not a time",
            "--log: \"a=b=c\"",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(
            parse(&[], None)
                .unwrap_err()
                .contains("at least one folder")
        );
    }

    #[test]
    fn times() {
        let table = [
            ("20s", Some(20)),
            ("90m", Some(5400)),
            ("24h", Some(86400)),
            ("7d", Some(604_800)),
        ];
        let wrong = [
            "",
            "s",
            "h",
            "1",
            "1w",
            "-1s",
            "+1s",
            "1.5h",
            " 1s",
            "99999999999999999999d",
            "1é",
        ];
        for (text, seconds) in table.into_iter().chain(wrong.map(|text| (text, None))) {
            assert_eq!(
                parse_duration(text).map(|time| time.as_secs()),
                seconds,
                "{text}"
            );
        }
        assert!(parse_ttl("9s").is_err() && parse_ttl("10s").is_ok() && parse_ttl("91d").is_err());
    }
}
