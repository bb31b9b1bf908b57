//! Tokens for the folder source: a JWT (RFC 7519) signed with Ed25519 by the controller, with the claims of a projected
//! service-account token, so that a proxy proves its pod here as it does in Kubernetes.
//!
//! Signing and checking are few lines here rather than a JWT library: one algorithm, one key, nothing to negotiate.

use crate::pod_ref::PodRef;
use crate::state::{Secrecy, StateDir, TOKEN_KEY};
use anyhow::{Context, Result, anyhow};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use weft_proxy_api::names::inject::TOKEN_AUDIENCE;

/// Who issues these tokens.
pub const ISSUER: &str = "weft-control";
/// Longest token looked at.
pub const MAX_TOKEN: usize = 8 << 10;
/// How far clocks may differ.
pub const SKEW: Duration = Duration::from_secs(60);
/// Life of a token where nothing else is said: a pod of the folder source has nobody who renews it.
pub const DEFAULT_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenClaims {
    /// Who issued it.
    pub iss: String,
    /// What it may be used for.
    pub aud: Audience,
    /// `system:serviceaccount:<namespace>:<account>`.
    pub sub: String,
    /// Which pod it is for.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
    /// When it was issued, seconds since 1970.
    pub iat: u64,
    /// Until when it counts, seconds since 1970.
    pub exp: u64,
}

/// One audience or several, as RFC 7519 writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// The pod, as Kubernetes writes it into a bound token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kubernetes {
    /// Namespace of pod and account.
    pub namespace: String,
    /// The pod.
    pub pod: Named,
    /// Its service account.
    pub serviceaccount: Named,
}

/// An object by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The name.
    pub name: String,
}

impl TokenClaims {
    /// Claims for one pod, from now on.
    pub fn for_pod(pod: &PodRef, account: &str, now: SystemTime, ttl: Duration) -> Self {
        let iat = seconds(now);
        Self {
            iss: ISSUER.into(),
            aud: Audience::Many(vec![TOKEN_AUDIENCE.into()]),
            sub: format!("system:serviceaccount:{}:{account}", pod.namespace),
            kubernetes: Kubernetes {
                namespace: pod.namespace.clone(),
                pod: Named {
                    name: pod.name.clone(),
                },
                serviceaccount: Named {
                    name: account.into(),
                },
            },
            iat,
            exp: iat.saturating_add(ttl.as_secs()),
        }
    }

    /// The pod it is for.
    pub fn pod(&self) -> PodRef {
        PodRef::new(&self.kubernetes.namespace, &self.kubernetes.pod.name)
    }

    /// The service account it is for.
    pub fn account(&self) -> &str {
        &self.kubernetes.serviceaccount.name
    }
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN`].
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Not three parts of base64url, or not JSON of the right shape.
    #[error("this is not a token (expected three parts of base64url JSON)")]
    Malformed,
    /// Signed in a way that is not ours: `none`, HMAC, RSA…
    #[error(
        "the token is not signed with EdDSA; only tokens of `meshctl token` or the local runtime are accepted"
    )]
    Algorithm,
    /// The signature does not fit our key.
    #[error(
        "the signature is not from this controller (was its state folder replaced? make a new token)"
    )]
    Signature,
    /// Made by or for somebody else.
    #[error("the token is not for {TOKEN_AUDIENCE}")]
    Audience,
    /// `sub` and the pod's claims contradict each other.
    #[error("the token's subject and its pod do not agree")]
    Subject,
    /// Its time is over.
    #[error("the token has expired; make a new one with `meshctl token`")]
    Expired,
    /// Issued in the future.
    #[error("the token was issued in the future; check the clocks")]
    NotYet,
    /// The API server does not know it.
    #[error(
        "the Kubernetes API server does not accept the token (expired, of another cluster, or its pod is gone)"
    )]
    Unknown,
    /// It stands for an account, not for one pod of it.
    #[error("the token is not bound to a pod; only projected tokens of a pod are accepted")]
    Unbound,
    /// The API server could not be asked.
    #[error("the Kubernetes API server cannot be asked about the token now; try again")]
    Review,
    /// Too many are to be asked about.
    #[error("too many tokens are being checked; try again")]
    Busy,
    /// Too many of this address were worth nothing.
    #[error("too many tokens from this address were worth nothing; try again later")]
    Doubted,
}

impl TokenError {
    /// Stable label for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::Signature => "token_signature",
            Self::Audience => "token_audience",
            Self::Subject => "token_subject",
            Self::Expired => "token_expired",
            Self::NotYet => "token_not_yet",
            Self::Unknown => "token_unknown",
            Self::Unbound => "token_unbound",
            Self::Review => "token_review",
            Self::Busy => "token_busy",
            Self::Doubted => "token_doubted",
        }
    }
}

/// The key that signs and checks tokens.
pub struct TokenKey(Ed25519KeyPair);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(…)") // never the key itself
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
    /// Extensions that must be understood (RFC 7515 section 4.1.11); we understand none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<serde_json::Value>,
}

impl TokenKey {
    /// The key of a state folder; made where there is none.
    pub fn open_or_create(state: &StateDir) -> Result<Self> {
        if let Some(pem) = state.read(TOKEN_KEY, Secrecy::Private)? {
            return Self::from_pem(&pem);
        }
        let _lock = state.lock()?;
        if let Some(pem) = state.read(TOKEN_KEY, Secrecy::Private)? {
            return Self::from_pem(&pem); // somebody else was faster
        }
        let pem = generate_pem()?;
        state.write(TOKEN_KEY, Secrecy::Private, &pem)?;
        Self::from_pem(&pem)
    }

    fn from_pem(pem: &str) -> Result<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| anyhow!("{TOKEN_KEY} is not a PKCS#8 key in PEM: {error}"))?;
        let pair = Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der())
            .map_err(|error| anyhow!("{TOKEN_KEY} is not an Ed25519 key: {error}"))?;
        Ok(Self(pair))
    }

    /// A signed token.
    pub fn issue(&self, claims: &TokenClaims) -> Result<String> {
        let header = Header {
            alg: "EdDSA".into(),
            typ: Some("JWT".into()),
            crit: None,
        };
        let mut token = base64url(&serde_json::to_vec(&header)?);
        token.push('.');
        token.push_str(&base64url(&serde_json::to_vec(claims)?));
        let signature = self.0.sign(token.as_bytes());
        token.push('.');
        token.push_str(&base64url(signature.as_ref()));
        Ok(token)
    }

    /// The claims of a token that this key signed, for us, and that counts at `now`.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<TokenClaims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = token.trim().rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        check_header(&json(header)?)?;
        let signature = unbase64url(signature).ok_or(TokenError::Malformed)?;
        UnparsedPublicKey::new(&ED25519, self.0.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        let claims: TokenClaims = json(payload)?;
        check_claims(&claims, seconds(now))?;
        Ok(claims)
    }
}

/// Who a token says has issued it. Nothing is checked: only good for deciding who can check it.
pub fn issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issued {
        iss: String,
    }
    if token.len() > MAX_TOKEN {
        return None;
    }
    let payload = token.trim().split('.').nth(1)?;
    json::<Issued>(payload).ok().map(|issued| issued.iss)
}

fn generate_pem() -> Result<String> {
    let pair =
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).context("cannot make a token key")?;
    Ok(pair.serialize_pem())
}

fn check_header(header: &Header) -> Result<(), TokenError> {
    let typ_fits = header
        .typ
        .as_deref()
        .is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
    if header.alg != "EdDSA" || header.crit.is_some() || !typ_fits {
        return Err(TokenError::Algorithm);
    }
    Ok(())
}

fn check_claims(claims: &TokenClaims, now: u64) -> Result<(), TokenError> {
    let for_us = match &claims.aud {
        Audience::One(one) => one == TOKEN_AUDIENCE,
        Audience::Many(many) => many.iter().any(|one| one == TOKEN_AUDIENCE),
    };
    if claims.iss != ISSUER || !for_us {
        return Err(TokenError::Audience);
    }
    let bound = &claims.kubernetes;
    if claims.sub
        != format!(
            "system:serviceaccount:{}:{}",
            bound.namespace, bound.serviceaccount.name
        )
    {
        return Err(TokenError::Subject);
    }
    if claims.exp.saturating_add(SKEW.as_secs()) <= now {
        return Err(TokenError::Expired);
    }
    if claims.iat > now.saturating_add(SKEW.as_secs()) {
        return Err(TokenError::NotYet);
    }
    Ok(())
}

/// A token for a pod of the folder source, signed with the key of `state` (made where there is none).
pub fn issue_for_pod(
    state: &StateDir,
    pod: &PodRef,
    account: &str,
    ttl: Duration,
) -> Result<String> {
    let key = TokenKey::open_or_create(state)?;
    key.issue(&TokenClaims::for_pod(pod, account, SystemTime::now(), ttl))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn json<T: for<'a> Deserialize<'a>>(part: &str) -> Result<T, TokenError> {
    let bytes = unbase64url(part).ok_or(TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// base64url without padding (RFC 4648 section 5).
fn base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(
                ALPHABET[(group >> (18 - 6 * place) & 63) as usize],
            ));
        }
    }
    text
}

/// The bytes of base64url; `None` for anything but its one shortest spelling.
fn unbase64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut group, mut bits) = (0u32, 0);
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == byte)?;
        group = (group << 6 | value as u32) & 0xfff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits) as u8);
        }
    }
    let spare = group & ((1 << bits) - 1);
    (bits < 6 && spare == 0).then_some(bytes)
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
