//! Whom to believe who is asking: only the API server, which shows its front-proxy certificate, and says who it asks for.
//!
//! Which authority signs that certificate, which names it may have and in which headers the caller is named, the API server
//! itself writes into the ConfigMap `extension-apiserver-authentication` of `kube-system`. What the caller may do it has
//! decided before (RBAC of the group, with `edges` as a sub-resource), so nothing is asked about that again.

use super::refusal::Refusal;
use anyhow::{Context, Result, bail};
use http::HeaderMap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use rustls::crypto::aws_lc_rs;
use rustls::server::{
    NoServerSessionStorage, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::{RootCertStore, version};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// The ConfigMap.
const NAME: &str = "extension-apiserver-authentication";
/// Its namespace.
const NAMESPACE: &str = "kube-system";
/// Between two looks at it; an authority is replaced rarely, and the old one stays in the bundle meanwhile.
const EVERY: Duration = Duration::from_secs(60);
/// The same while it cannot be read.
const RETRY: Duration = Duration::from_secs(5);
/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Where the caller is named if the ConfigMap does not say.
const USER: &str = "X-Remote-User";

/// What the API server says about its front proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    roots: Vec<CertificateDer<'static>>,
    /// Common names; empty: any.
    names: Vec<String>,
    user_headers: Vec<String>,
}

impl Trust {
    /// From the data of the ConfigMap.
    pub fn read(data: &BTreeMap<String, String>) -> Result<Self> {
        let list = |key: &str| -> Result<Vec<String>> {
            match data.get(key) {
                None => Ok(vec![]),
                Some(text) => serde_json::from_str(text)
                    .with_context(|| format!("{key} is not a list of texts")),
            }
        };
        const ROOTS: &str = "requestheader-client-ca-file";
        let pem = data.get(ROOTS).with_context(|| {
            format!("{ROOTS} is missing: the API server has no front proxy (aggregation is off)")
        })?;
        let roots: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .ok()
            .with_context(|| format!("{ROOTS} is not PEM"))?;
        if roots.is_empty() {
            bail!("{ROOTS} has no certificate");
        }
        let mut user_headers = list("requestheader-username-headers")?;
        if user_headers.is_empty() {
            user_headers.push(USER.into());
        }
        Ok(Self {
            roots,
            names: list("requestheader-allowed-names")?,
            user_headers,
        })
    }
}

/// Reads the ConfigMap for ever, and tells what has changed. What cannot be read changes nothing.
pub async fn keep(client: Client, trust: watch::Sender<Option<Arc<Trust>>>) {
    let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let mut last = None;
    loop {
        let failure = match timeout(LIMIT, look(&api)).await {
            Ok(Ok(found)) => {
                trust.send_if_modified(|known| {
                    let is_new = known.as_deref() != Some(&found);
                    if is_new {
                        *known = Some(Arc::new(found));
                    }
                    is_new
                });
                None
            }
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some(format!("no answer in {LIMIT:?}")),
        };
        if let Some(failure) = failure.as_ref().filter(|it| last.as_ref() != Some(*it)) {
            tracing::warn!("metrics API: ConfigMap {NAMESPACE}/{NAME}: {failure}");
        }
        let pause = if failure.is_some() { RETRY } else { EVERY };
        last = failure;
        sleep(pause).await;
    }
}

async fn look(api: &Api<ConfigMap>) -> Result<Trust> {
    let found = api.get(NAME).await.context("cannot read it")?;
    Trust::read(&found.data.unwrap_or_default())
}

/// How connections are taken while one [`Trust`] holds.
pub(super) struct Door {
    pub tls: Arc<ServerConfig>,
    trust: Option<Arc<Trust>>,
}

impl Door {
    /// Without trust everybody is let in, to be told that they are not known.
    pub(super) fn new(
        trust: Option<Arc<Trust>>,
        certificate: Arc<dyn ResolvesServerCert>,
    ) -> Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .context("no TLS 1.3")?;
        let config = match &trust {
            None => config.with_no_client_auth(),
            Some(trust) => {
                let mut roots = RootCertStore::empty();
                for root in &trust.roots {
                    roots
                        .add(root.clone())
                        .context("the front proxy's authority cannot be used")?;
                }
                let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .allow_unauthenticated()
                    .build()
                    .context("cannot check client certificates")?;
                config.with_client_cert_verifier(clients)
            }
        };
        let mut tls = config.with_cert_resolver(certificate);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Whoever comes again shows its certificate again.
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        Ok(Self {
            tls: Arc::new(tls),
            trust,
        })
    }

    /// Who asks, on a connection whose client showed this certificate (which TLS has checked).
    pub(super) fn user(
        &self,
        certificate: Option<&CertificateDer<'_>>,
        headers: &HeaderMap,
    ) -> Result<String, Refusal> {
        let Some(trust) = &self.trust else {
            let message = "it is not known yet which API server to believe";
            return Err(Refusal::unauthorized(message));
        };
        let Some(certificate) = certificate else {
            let message = "only the API server asks here, with its front-proxy certificate";
            return Err(Refusal::unauthorized(message));
        };
        let name = common_name(certificate).unwrap_or_default();
        if !trust.names.is_empty() && !trust.names.contains(&name) {
            let message = "the certificate is not one of the API server's front proxy";
            return Err(Refusal::unauthorized(message));
        }
        let named = trust
            .user_headers
            .iter()
            .filter_map(|header| headers.get(header)?.to_str().ok())
            .find(|user| !user.is_empty());
        named
            .map(str::to_owned)
            .ok_or_else(|| Refusal::unauthorized("the API server does not say who asks"))
    }
}

/// The name in a certificate's subject.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    Some(name.as_str().ok()?.to_owned())
}

#[cfg(test)]
#[path = "front_tests.rs"]
mod tests;
