//! Our certificate: obtained, kept, renewed with a new key each time.
//!
//! ```text
//!              ┌──── failed: 1 s … 60 s (10 s), keep what is valid ◄─┐
//!              ▼                                                     │
//!   start ─► Asking ── certified ─► Valid ── 70 % of its life ─► Asking
//!                                     ├── the mesh signs with another root ─► Asking
//!                                     └── its end, no newer one ─► Expired (not ready; mutual TLS fails closed)
//! ```

use super::Tls;
use super::verify::{self, Trust};
use crate::discover::{Certified, Certifier};
use crate::error::BoxError;
use crate::metrics::Metrics;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde::Deserialize;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use weft_proxy_api::identity::SpiffeId;

/// First and longest wait after a failure…
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// …and the longest where there is no valid certificate: nobody is served meanwhile.
const BACKOFF_WITHOUT: Duration = Duration::from_secs(10);
/// Tries that the end of a certificate leaves room for, at least.
const TRIES: u32 = 10;
/// Over this time the proxies of a mesh ask for certificates of a new root.
const SPREAD: Duration = Duration::from_secs(5);
/// Longest sleep at a stretch: the wall clock is looked at that often, as a machine may have been suspended.
const STRIDE: Duration = Duration::from_secs(60);
/// Largest token file.
const MAX_TOKEN: u64 = 16 * 1024;

/// Asks the controller to sign.
pub trait Certify: Send + Sync + 'static {
    /// `csr` is PKCS#10 in DER, `token` the workload's.
    fn certify(
        &self,
        csr: Vec<u8>,
        token: String,
    ) -> impl Future<Output = Result<Certified, BoxError>> + Send;
}

impl Certify for Certifier {
    async fn certify(&self, csr: Vec<u8>, token: String) -> Result<Certified, BoxError> {
        Ok(Certifier::certify(self, csr, token).await?)
    }
}

/// How our identity stands, for readiness and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// None yet; why the last attempt failed.
    Asking(Option<String>),
    /// Certified until then.
    Valid {
        /// Who we are.
        id: SpiffeId,
        /// End of the certificate.
        not_after: SystemTime,
        /// How long it was to last when it was taken over.
        life: Duration,
    },
    /// The certificate ended and there is no newer one; why the last attempt failed.
    Expired(Option<String>),
}

/// Obtains and renews the certificate of `tls`.
pub struct Renewal<C> {
    /// What the certificates are for.
    pub tls: Tls,
    /// Who signs.
    pub certify: C,
    /// File with the token; read at every attempt, as it is replaced from outside.
    pub token_file: PathBuf,
    /// What time it is.
    pub clock: fn() -> SystemTime,
    /// Where the state is told.
    pub state: watch::Sender<State>,
    /// Where attempts are counted.
    pub metrics: Arc<Metrics>,
}

/// A certificate in use.
struct Held {
    id: SpiffeId,
    not_after: SystemTime,
    renew_at: SystemTime,
    life: Duration,
}

impl<C: Certify> Renewal<C> {
    /// Runs until dropped.
    pub async fn run(self) {
        let mut held: Option<Held> = None;
        let mut failures = 0;
        // Bound before the first attempt, so that both are there to be watched from the beginning.
        let count = |result| self.metrics.identity_renewals(result);
        let (ok, failed) = (count("ok"), count("failed"));
        // Asked for once: a controller that still signs with the old root is not asked again and again.
        let mut root: Option<Vec<u8>> = None;
        loop {
            if let Some(held) = &held {
                tokio::select! {
                    () = self.sleep_until(held.renew_at.min(held.not_after)) => {}
                    new = self.tls.superseded(root.as_deref()) => {
                        tokio::time::sleep(SPREAD.mul_f64(fastrand::f64())).await;
                        root = Some(new);
                    }
                }
            }
            match self.attempt().await {
                Ok(new) => {
                    ok.inc();
                    tracing::info!(id = %new.id, valid_for = ?self.left(new.not_after), "identity certified");
                    self.state.send_replace(State::Valid {
                        id: new.id.clone(),
                        not_after: new.not_after,
                        life: new.life,
                    });
                    held = Some(new);
                    failures = 0;
                }
                Err(error) => {
                    failed.inc();
                    tracing::warn!(%error, "identity not certified; trying again");
                    self.wait_after(failures, &mut held, error.to_string())
                        .await;
                    failures += 1;
                }
            }
        }
    }

    /// Waits before the next attempt, and lets go of a certificate that ends meanwhile.
    async fn wait_after(&self, failures: u32, held: &mut Option<Held>, reason: String) {
        let most = longest(held.as_ref().map(|held| held.life));
        let again = (self.clock)() + backoff(failures, most, fastrand::f64());
        let ends = held.as_ref().map(|held| held.not_after);
        match ends {
            None => self.state.send_modify(|state| match state {
                State::Asking(why) | State::Expired(why) => *why = Some(reason),
                State::Valid { .. } => {}
            }),
            Some(ends) if ends <= again => {
                self.sleep_until(ends).await;
                tracing::error!(
                    "our certificate has expired; mutual TLS fails until there is a new one"
                );
                self.tls.drop_certificate();
                self.state.send_replace(State::Expired(Some(reason)));
                *held = None;
            }
            // Renewed early enough that a few failures do not matter.
            Some(_) => {}
        }
        self.sleep_until(again).await;
        if let Some(held) = held {
            held.renew_at = again;
        }
    }

    /// One new key, one request, one checked answer, in use at once.
    async fn attempt(&self) -> Result<Held, BoxError> {
        let token = read_token(&self.token_file).await?;
        let id = subject(&token, self.tls.trust_domain())?;
        let (key, csr) = request(&id)?;
        let certified = self.certify.certify(csr, token).await?;
        let now = (self.clock)();
        let not_after = check(&certified, &id, self.tls.trust_domain(), now)?;
        self.tls.set_roots(certified.roots);
        self.tls.set_certificate(id.clone(), certified.chain, key)?;
        Ok(Held {
            id,
            not_after,
            renew_at: renew_at(now, not_after, fastrand::f64()),
            life: not_after.duration_since(now).unwrap_or_default(),
        })
    }

    async fn sleep_until(&self, when: SystemTime) {
        loop {
            let left = self.left(when);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(STRIDE)).await;
        }
    }

    fn left(&self, until: SystemTime) -> Duration {
        until.duration_since((self.clock)()).unwrap_or_default()
    }
}

/// 70 % of what is left of its life, 5 % earlier or later so that a fleet does not ask at once. `random` is in 0..1.
fn renew_at(now: SystemTime, not_after: SystemTime, random: f64) -> SystemTime {
    let life = not_after.duration_since(now).unwrap_or_default();
    now + life.mul_f64(0.65 + 0.1 * random)
}

/// Longest wait after a failure, by the whole life of the certificate that is still good.
fn longest(life: Option<Duration>) -> Duration {
    life.map_or(BACKOFF_WITHOUT, |life| {
        (life / TRIES).clamp(BACKOFF.0, BACKOFF.1)
    })
}

/// Doubling from 1 s to `most`; the upper half is random. `random` is in 0..1.
fn backoff(failures: u32, most: Duration, random: f64) -> Duration {
    let full = BACKOFF.0.saturating_mul(1 << failures.min(10)).min(most);
    full.mul_f64(0.5 + 0.5 * random).max(BACKOFF.0)
}

/// A fresh key and the request to sign it.
fn request(id: &SpiffeId) -> Result<(PrivateKeyDer<'static>, Vec<u8>), BoxError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
    let csr = params.serialize_request(&key)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    Ok((key, csr.der().to_vec()))
}

/// Is the answer for us, from our mesh, and still alive? Says when the certificate ends.
fn check(
    answer: &Certified,
    id: &SpiffeId,
    domain: &str,
    now: SystemTime,
) -> Result<SystemTime, BoxError> {
    let (leaf, intermediates) = answer
        .chain
        .split_first()
        .ok_or("the answer holds no certificate")?;
    let leaf = CertificateDer::from(leaf.as_slice());
    let intermediates: Vec<_> = intermediates
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    let trust = Trust::new(domain, &answer.roots, Arc::new(super::provider()));
    let at = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH)?);
    let named = trust.verify(&leaf, &intermediates, at, webpki::KeyUsage::server_auth())?;
    if named != *id {
        return Err(format!("the answer is for {named}, we are {id}").into());
    }
    let (_, not_after) = verify::validity(&leaf)?;
    let ends = UNIX_EPOCH + Duration::from_secs(u64::try_from(not_after)?);
    // Clocks may differ a little, but what is over now would be asked for again at once, and again.
    if ends <= now {
        return Err("the certificate of the answer has ended already: do the clocks agree?".into());
    }
    Ok(ends)
}

async fn read_token(file: &std::path::Path) -> Result<String, BoxError> {
    let named = |error: std::io::Error| format!("token file {}: {error}", file.display());
    if tokio::fs::metadata(file).await.map_err(named)?.len() > MAX_TOKEN {
        return Err(format!(
            "token file {} is larger than {MAX_TOKEN} bytes",
            file.display()
        )
        .into());
    }
    Ok(tokio::fs::read_to_string(file)
        .await
        .map_err(named)?
        .trim()
        .to_owned())
}

/// Who the token (a JWT of a service account) says we are. Nothing is verified: the controller does that, and its
/// answer must name the same workload.
fn subject(token: &str, domain: &str) -> Result<SpiffeId, BoxError> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let payload = token
        .split('.')
        .nth(1)
        .and_then(base64url)
        .ok_or("the token is not a JWT")?;
    let claims: Claims =
        serde_json::from_slice(&payload).map_err(|_| "the token has no subject")?;
    let account = claims
        .sub
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    let (namespace, account) = account.ok_or("the token's subject is not a service account")?;
    Ok(SpiffeId::new(domain, namespace, account)?)
}

/// Base64 with the alphabet for URLs, without padding (RFC 4648 section 5).
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests;
