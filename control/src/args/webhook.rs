//! Settings of the webhook.

use super::{parse_address, parse_duration};
use crate::inject::{Settings, Sidecar};
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::time::Duration;
use weft_proxy_api::names::{self, control_env as env, ports};

const DEFAULT_CA_TTL: &str = "365d";
const MIN_CA_TTL: Duration = Duration::from_secs(60);
const MAX_CA_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);

/// As typed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Webhook, with --kubernetes")]
pub(super) struct WebhookArgs {
    /// Address of the webhook that injects pods, converts SMI objects and refuses broken ones [default: none]
    #[arg(long, env = env::WEBHOOK_ADDR, value_name = "ADDR")]
    webhook_addr: Option<String>,
    /// Address of the aggregated API metrics.smi-spec.io; it shows the webhook's certificate [default: none]
    #[arg(long, env = env::METRICS_API_ADDR, value_name = "ADDR")]
    metrics_api_addr: Option<String>,
    /// Life of the authority that signs the webhook's certificates; it is replaced after two thirds of it
    #[arg(long, value_name = "TIME", default_value = DEFAULT_CA_TTL)]
    webhook_ca_ttl: String,
    /// How the proxy of an injected pod is run: native needs Kubernetes 1.29
    #[arg(long, value_enum, value_name = "HOW", default_value = "native")]
    inject_sidecar: SidecarArg,
    /// Where injected proxies find the controller [default: its Service]
    #[arg(long, value_name = "HOST:PORT")]
    inject_control_addr: Option<String>,
    /// An annotation config.weft.mesh/KEY=VALUE for injected pods that do not say otherwise; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    inject_default: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SidecarArg {
    /// An init container that keeps running
    Native,
    /// The first ordinary container
    Plain,
}

/// As meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where the aggregated API of traffic metrics listens, if it is served.
    pub metrics_api: Option<SocketAddr>,
    /// Life of the authority of its certificates.
    pub ca_ttl: Duration,
    /// How the proxy of an injected pod is run.
    pub sidecar: Sidecar,
    /// `host:port` of the controller, for injected proxies.
    pub control_addr: String,
    /// Annotations for pods that do not say otherwise; checked.
    pub defaults: Vec<(String, String)>,
}

impl Webhook {
    /// How pods are injected. The roots are not in it.
    pub fn injection(&self, trust_domain: &str) -> Result<Settings, String> {
        let mut settings = Settings {
            sidecar: self.sidecar,
            control_addr: self.control_addr.clone(),
            trust_domain: trust_domain.to_owned(),
            ..Settings::default()
        };
        for (key, value) in &self.defaults {
            settings.set(key, value)?;
        }
        settings.check()?;
        Ok(settings)
    }
}

impl WebhookArgs {
    /// `None`: there is no webhook.
    pub(super) fn mean(
        self,
        kubernetes: bool,
        namespace: &str,
        trust_domain: &str,
        note: &mut impl FnMut(&str, String),
    ) -> Option<Webhook> {
        let metrics_api = self
            .metrics_api_addr
            .as_deref()
            .map(|text| super::read(text, "metrics-api-addr", parse_address, note));
        if metrics_api.is_some() && self.webhook_addr.is_none() {
            note("metrics-api-addr", "needs --webhook-addr".into());
        }
        let address = super::read(&self.webhook_addr?, "webhook-addr", parse_address, note);
        if !kubernetes {
            note("webhook-addr", "is for --kubernetes only".into());
        }
        let ca_ttl = super::read(&self.webhook_ca_ttl, "webhook-ca-ttl", parse_life, note);
        let mut defaults = Vec::new();
        for text in &self.inject_default {
            match text.split_once('=') {
                Some((key, value)) => defaults.push((key.to_owned(), value.to_owned())),
                None => note("inject-default", format!("{text:?} is not KEY=VALUE")),
            }
        }
        let service = format!("{}.{namespace}.svc.cluster.local", names::CONTROL_ACCOUNT);
        let webhook = Webhook {
            address: address?,
            metrics_api: metrics_api.flatten(),
            ca_ttl: ca_ttl?,
            sidecar: match self.inject_sidecar {
                SidecarArg::Native => Sidecar::Native,
                SidecarArg::Plain => Sidecar::Plain,
            },
            control_addr: self
                .inject_control_addr
                .unwrap_or_else(|| format!("{service}:{}", ports::CONTROL)),
            defaults,
        };
        match webhook.injection(trust_domain) {
            Ok(_) => Some(webhook),
            Err(mistake) => {
                note("inject-default", mistake);
                None
            }
        }
    }
}

fn parse_life(text: &str) -> Result<Duration, String> {
    let life = parse_duration(text).ok_or("is not a time like 365d")?;
    match (MIN_CA_TTL..=MAX_CA_TTL).contains(&life) {
        true => Ok(life),
        false => Err("is not between 60s and 3650d".into()),
    }
}
