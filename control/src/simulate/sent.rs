//! Who asks, and what is sent: as far as it can be proven, and in the form in which proxies judge it.

use super::answer::{Decision, Verdict};
use super::ask::Talk;
use super::complete::NOBODY;
use super::judge::refused;
use super::question::{From, To};
use crate::manifest::Object;
use crate::views::pod;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use std::net::IpAddr;
use weft_proxy_api::errors::ErrorKind;
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::names::headers;
use weft_proxy_api::policy::inbound::Caller;
use weft_proxy_api::policy::matching::RequestView;
use weft_proxy_api::policy::path::{normalise, normalise_host};

/// Who asks, as far as it can be proven.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) identity: Option<SpiffeId>,
    pub(super) address: IpAddr,
    /// It calls through a proxy.
    pub(super) meshed: bool,
}

impl Asker {
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller {
            identity: self.identity.as_ref(),
            address: self.address,
        }
    }
}

/// What is sent.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// HTTP, in the form in which proxies judge it.
    Http(HttpRequest),
    /// TLS of the application, to the server that it names.
    Tls(String),
    /// Bytes.
    Bytes,
}

/// A request after the checks of a proxy.
#[derive(Debug, Clone)]
pub(super) struct HttpRequest {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) host: String,
    pub(super) headers: HeaderMap,
}

impl HttpRequest {
    pub(super) fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            path: &self.path,
            host: &self.host,
            headers: &self.headers,
        }
    }
}

impl Talk<'_> {
    /// Who asks.
    pub(super) fn who(&mut self) -> Result<Asker, Box<Decision>> {
        let domain = self.reader().mesh().trust_domain.clone();
        let proven = |identity: SpiffeId, address| Asker {
            identity: Some(identity),
            address,
            meshed: true,
        };
        match &self.question.from {
            From::Unmeshed => Ok(Asker {
                identity: None,
                address: NOBODY,
                meshed: false,
            }),
            From::Account { namespace, name } => {
                let identity = SpiffeId::new(&domain, namespace, name)
                    .map_err(|error| Decision::refuse(error.to_string()))?;
                let address = self.address_of(namespace, name);
                Ok(proven(identity, address))
            }
            From::Spiffe(text) => {
                let identity: SpiffeId = text.parse().map_err(|_| not_a_workload(text))?;
                if identity.trust_domain() != domain {
                    self.assume(format!(
                        "the proxy of the destination trusts the certificates of {}; those of the mesh {domain} trust no other domain by themselves",
                        identity.trust_domain()
                    ));
                    return Ok(proven(identity, NOBODY));
                }
                let address = self.address_of(identity.namespace(), identity.account());
                Ok(proven(identity, address))
            }
            From::Pod { namespace, name } => self.pod_as_caller(namespace, name, &domain),
        }
    }

    /// Where a pod of this account calls from, if there is one.
    fn address_of(&self, namespace: &str, account: &str) -> IpAddr {
        let pods = self.state().world.objects();
        let mine = pods.filter_map(|loaded| match &loaded.object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        });
        mine.filter(|pod| pod.metadata.namespace == namespace && pod.spec.account() == account)
            .find_map(|pod| pod.status.ips().first().copied())
            .unwrap_or(NOBODY)
    }

    fn pod_as_caller(
        &mut self,
        namespace: &str,
        name: &str,
        domain: &str,
    ) -> Result<Asker, Box<Decision>> {
        let Some(found) = self.pod(namespace, name) else {
            return Err(Decision::refuse(format!(
                "there is no Pod {namespace}/{name}"
            )));
        };
        let meshed = pod::is_meshed(self.reader(), found) && !found.spec.host_network;
        let account = found.spec.account();
        let identity = meshed
            .then(|| SpiffeId::new(domain, namespace, account))
            .transpose()
            .map_err(|error| Decision::refuse(error.to_string()))?;
        Ok(Asker {
            identity,
            address: found.status.ips().first().copied().unwrap_or(NOBODY),
            meshed,
        })
    }

    /// The request as a proxy has it after its checks; what it refuses, it answers with 400.
    pub(super) fn http(&self) -> Result<HttpRequest, Box<Decision>> {
        let bad = |why: &str| refused(ErrorKind::BadRequest, why.to_owned());
        let question = self.question;
        // With a protocol it opens one stream to a path (RFC 8441), judged as any other request.
        if question.method == "CONNECT" && question.connect.is_none() {
            let why = "CONNECT is not carried: connect to the target itself";
            return Err(refused(ErrorKind::UnsupportedUpgrade, why.to_owned()));
        }
        let sent = &question.headers;
        if sent.contains_key(CONTENT_LENGTH) && sent.contains_key(TRANSFER_ENCODING) {
            return Err(bad("both Content-Length and Transfer-Encoding"));
        }
        let path = question.path.split(['?', '#']).next().unwrap_or_default();
        let path = if path.is_empty() { "/" } else { path };
        let is_target = path.starts_with('/') || (path == "*" && question.method == "OPTIONS");
        if !is_target || http::uri::PathAndQuery::try_from(path).is_err() {
            return Err(bad("the target of the request is not a path"));
        }
        let path = normalise(path).map_err(|error| bad(&error.to_string()))?;
        Ok(HttpRequest {
            method: question.method.clone(),
            path: path.into_owned(),
            host: self.host()?,
            headers: cleaned(sent),
        })
    }

    /// Host as policy sees it; where none is given, callers use the name they called.
    fn host(&self) -> Result<String, Box<Decision>> {
        let bad = |why: &str| refused(ErrorKind::BadRequest, why.to_owned());
        let mut hosts = self.question.headers.get_all(HOST).iter();
        let Some(host) = hosts.next() else {
            return Ok(match &self.question.to {
                To::Service {
                    namespace, name, ..
                } => format!("{name}.{namespace}"),
                To::Pod { .. } => String::new(),
            });
        };
        if hosts.next().is_some() {
            return Err(bad("more than one Host"));
        }
        let host = host.to_str().ok().and_then(normalise_host);
        let host = host.filter(|host| !host.is_empty());
        host.map(|host| host.into_owned())
            .ok_or_else(|| bad("Host is not valid"))
    }
}

fn not_a_workload(text: &str) -> Box<Decision> {
    Box::new(Decision {
        verdict: Verdict::Deny,
        ..*Decision::refuse(format!(
            "{text:?} is not the identity of a workload (spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT): proxies refuse its handshake"
        ))
    })
}

/// Without what belongs to one connection, and what only proxies may say.
fn cleaned(sent: &HeaderMap) -> HeaderMap {
    const OF_CONNECTION: [&str; 7] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "te",
        "http2-settings",
    ];
    let stays = |name: &HeaderName| {
        let name = name.as_str();
        name != "host" && !OF_CONNECTION.contains(&name) && !headers::is_reserved(name)
    };
    let kept = sent.iter().filter(|(name, _)| stays(name));
    kept.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
