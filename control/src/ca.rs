//! The embedded certificate authority: a root, an issuer below it, and certificates for workloads.
//!
//! What a request says is only checked, never copied: a certificate holds the requester's public key and what we know.

pub mod rotate;

use crate::pod_ref::PodRef;
use crate::state::{CA_CERT, CA_KEY, Secrecy, StateDir, TRUST_ANCHORS};
use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::RwLock;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::wire::Trust;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// Life of root and issuer.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A certificate counts from a little before it was made: clocks differ.
const SKEW: Duration = Duration::from_secs(60);
/// Longest common name that every reader takes (RFC 5280, ub-common-name).
const MAX_COMMON_NAME: usize = 64;
/// Longest request looked at.
const MAX_CSR: usize = 16 << 10;

/// An open certificate authority. What it holds is replaced as a whole when the files of its state folder change.
pub struct Ca {
    current: RwLock<Arc<Held>>,
    trust_domain: String,
}

/// One issuer, and the roots that are trusted beside its own.
struct Held {
    issuer: Issuer<'static, KeyPair>,
    issuer_cert: CertificateDer<'static>,
    issuer_not_after: OffsetDateTime,
    roots: Vec<CertificateDer<'static>>,
}

/// A certificate, with what lies between it and the roots.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Leaf first, then the issuer.
    pub chain: Vec<CertificateDer<'static>>,
    /// Until when it counts, seconds since 1970.
    pub not_after: u64,
    /// Serial number in hex, for logs.
    pub serial: String,
}

/// Why a signing request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Not a PKCS#10 request.
    #[error("the request is not a certificate signing request (PKCS#10, DER)")]
    Malformed,
    /// Signed with another key than the one it shows.
    #[error("the request is not signed with its own key")]
    Signature,
    /// A kind of key we do not sign for.
    #[error("only ECDSA P-256, P-384 and Ed25519 keys are signed")]
    Key,
    /// It asks for a name that the token does not stand for.
    #[error("the request asks for {asked}, the token stands for {allowed}")]
    Name {
        /// What was asked.
        asked: String,
        /// What would be signed.
        allowed: String,
    },
    /// It asks to be an authority.
    #[error("the request asks for CA:TRUE")]
    Authority,
    /// Our own certificate cannot sign any more.
    #[error("the issuer's own certificate has expired")]
    IssuerExpired,
    /// Signing failed.
    #[error("cannot sign: {0}")]
    Sign(String),
}

impl CsrError {
    /// Stable label for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed => "csr_malformed",
            Self::Signature => "csr_signature",
            Self::Key => "csr_key",
            Self::Name { .. } => "csr_name",
            Self::Authority => "csr_authority",
            Self::IssuerExpired => "issuer_expired",
            Self::Sign(_) => "sign",
        }
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca")
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive() // never the key
    }
}

impl Ca {
    /// The authority of a state folder; made where there is none.
    pub fn open_or_create(state: &StateDir, trust_domain: &str) -> Result<Self> {
        if state.read(CA_CERT, Secrecy::Public)?.is_none() {
            let _lock = state.lock()?;
            // `ca.crt` is written last: without it nothing was ever signed, and nobody misses a lone key.
            if state.read(CA_CERT, Secrecy::Public)?.is_none() {
                create(state, trust_domain)?;
            }
        }
        let held = Held::open(state).with_context(|| {
            format!(
                "the certificate authority in {} cannot be used",
                state.path().display()
            )
        })?;
        Ok(Self {
            current: RwLock::new(Arc::new(held)),
            trust_domain: trust_domain.to_owned(),
        })
    }

    /// Reads the state folder again: is anything different now? What cannot be used leaves everything as it was.
    pub fn reload(&self, state: &StateDir) -> Result<bool> {
        let new = {
            let _lock = state.lock()?; // whoever rotates writes several files
            Held::open(state)?
        };
        let mut current = self.current.write();
        let same = current.issuer_cert == new.issuer_cert && current.roots == new.roots;
        if !same {
            *current = Arc::new(new);
        }
        Ok(!same)
    }

    fn held(&self) -> Arc<Held> {
        self.current.read().clone()
    }

    /// The trust domain of the mesh.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The roots of the mesh: our own, and others that `trust-anchors.pem` lists beside it (for a rotation).
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.held().roots.clone()
    }

    /// The trust bundle, as proxies get it.
    pub fn trust(&self) -> Trust {
        Trust {
            roots: self.roots().iter().map(|root| root.to_vec()).collect(),
            domain: self.trust_domain.clone(),
        }
    }

    /// Signs a request (PKCS#10, DER) for exactly `id`, in the hands of exactly `pod`.
    pub fn issue_leaf(
        &self,
        csr: &[u8],
        id: &SpiffeId,
        pod: &PodRef,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Leaf, CsrError> {
        let key = check_csr(csr, id)?;
        self.held().sign(&key, id, Some(pod), ttl, now)
    }

    /// A certificate and its new key for the controller itself.
    pub fn issue_own(
        &self,
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<(Leaf, PrivateKeyDer<'static>)> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let leaf = self.held().sign(&key, id, None, ttl, now)?;
        Ok((leaf, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }
}

impl Held {
    fn open(state: &StateDir) -> Result<Self> {
        let key = state.read(CA_KEY, Secrecy::Private)?.ok_or_else(|| {
            anyhow!("{CA_KEY} is missing: restore it, or remove {CA_CERT} to start a new mesh")
        })?;
        let key = KeyPair::from_pem(&key)
            .map_err(|error| anyhow!("{CA_KEY} is not a private key: {error}"))?;
        let pem = state.read(CA_CERT, Secrecy::Public)?.unwrap_or_default();
        let [issuer_cert, root] = <[_; 2]>::try_from(certificates(&pem, CA_CERT)?)
            .map_err(|_| anyhow!("{CA_CERT} must hold the issuer and then its root"))?;
        let issuer_not_after = check_issuer(&issuer_cert, &root, &key)?;
        let roots = trust_anchors(state, root, &pem)?;
        let issuer = Issuer::from_ca_cert_der(&issuer_cert, key)
            .map_err(|error| anyhow!("{CA_CERT}: {error}"))?;
        Ok(Self {
            issuer,
            issuer_cert,
            issuer_not_after,
            roots,
        })
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        id: &SpiffeId,
        pod: Option<&PodRef>,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Leaf, CsrError> {
        let now = OffsetDateTime::from(now);
        let not_after = (now + ttl).min(self.issuer_not_after);
        if not_after <= now {
            return Err(CsrError::IssuerExpired);
        }
        let serial = random_serial().map_err(|error| CsrError::Sign(error.to_string()))?;
        let params = leaf_params(id, pod, &serial, now - SKEW, not_after)?;
        let leaf = params
            .signed_by(key, &self.issuer)
            .map_err(|error| CsrError::Sign(error.to_string()))?;
        Ok(Leaf {
            chain: vec![leaf.der().clone(), self.issuer_cert.clone()],
            not_after: not_after.unix_timestamp().max(0).unsigned_abs(),
            serial: hex(&serial),
        })
    }
}

/// A new root and the issuer below it, as they are written.
struct Made {
    /// Private key of the issuer.
    key: String,
    /// The issuer's certificate.
    issuer: String,
    /// The root's certificate.
    root: String,
}

fn create(state: &StateDir, trust_domain: &str) -> Result<()> {
    let made = make(trust_domain)?;
    state.write(CA_KEY, Secrecy::Private, &made.key)?;
    state.write(TRUST_ANCHORS, Secrecy::Public, &made.root)?;
    state.write(CA_CERT, Secrecy::Public, &(made.issuer + &made.root))
}

/// Makes root and issuer. The root's key signs the issuer and is forgotten: it cannot leak.
fn make(trust_domain: &str) -> Result<Made> {
    let now = OffsetDateTime::now_utc();
    let root_key = KeyPair::generate().context("cannot make the root's key")?;
    let issuer_key = KeyPair::generate().context("cannot make the issuer's key")?;
    let root = authority("root", trust_domain, 1, now)?;
    let issuer = authority("issuer", trust_domain, 0, now)?;
    let root_cert = root.self_signed(&root_key)?;
    let issuer_cert = issuer.signed_by(&issuer_key, &Issuer::from_params(&root, &root_key))?;
    Ok(Made {
        key: issuer_key.serialize_pem(),
        issuer: issuer_cert.pem(),
        root: root_cert.pem(),
    })
}

fn authority(
    role: &str,
    trust_domain: &str,
    below: u8,
    now: OffsetDateTime,
) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, trust_domain);
    let serial = random_serial()?;
    // A name of its own: during a rotation the old and the new root are told apart by it.
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Weft {role} {}", hex(&serial[..4])),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = now - SKEW;
    params.not_after = now + CA_LIFE;
    Ok(params)
}

/// The common name that binds a certificate to a pod: `namespace/name`, or a hash of it where that is too long. The
/// identity is in the SAN and only there; this says which pod of the account holds it.
pub fn common_name(pod: &PodRef) -> String {
    let name = pod.to_string();
    match name.len() <= MAX_COMMON_NAME {
        true => name,
        // 224 bits, and no `/`: no pod has a name that looks like this.
        false => format!(
            "sha256:{}",
            hex(&digest(&SHA256, name.as_bytes()).as_ref()[..28])
        ),
    }
}

fn leaf_params(
    id: &SpiffeId,
    pod: Option<&PodRef>,
    serial: &[u8],
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<CertificateParams, CsrError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(pod) = pod {
        params
            .distinguished_name
            .push(DnType::CommonName, common_name(pod));
    }
    params.subject_alt_names =
        vec![SanType::URI(id.as_str().try_into().map_err(|_| {
            CsrError::Sign("identity is not ASCII".into())
        })?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.use_authority_key_identifier_extension = true;
    params.not_before = not_before;
    params.not_after = not_after;
    Ok(params)
}

/// 126 random bits with the first one set, so that every serial is positive and equally long.
fn random_serial() -> Result<[u8; 16]> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| anyhow!("no randomness"))?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key a request shows, if the request asks for `id` (or for no name) and is signed with that key.
fn check_csr(der: &[u8], id: &SpiffeId) -> Result<SubjectPublicKeyInfo, CsrError> {
    if der.len() > MAX_CSR {
        return Err(CsrError::Malformed);
    }
    let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let info = &csr.certification_request_info;
    let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| CsrError::Key)?;
    let accepted = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ];
    if !accepted.contains(&key.algorithm()) {
        return Err(CsrError::Key);
    }
    csr.verify_signature().map_err(|_| CsrError::Signature)?;
    for attribute in info.iter_attributes() {
        if let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() {
            requested
                .extensions
                .iter()
                .try_for_each(|extension| check_extension(extension.parsed_extension(), id))?;
        }
    }
    Ok(key)
}

fn check_extension(extension: &ParsedExtension<'_>, id: &SpiffeId) -> Result<(), CsrError> {
    match extension {
        ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
            Err(CsrError::Authority)
        }
        ParsedExtension::SubjectAlternativeName(names) => match names.general_names.as_slice() {
            [GeneralName::URI(uri)] if *uri == id.as_str() => Ok(()),
            other => Err(CsrError::Name {
                asked: describe(other),
                allowed: id.to_string(),
            }),
        },
        _ => Ok(()),
    }
}

fn describe(names: &[GeneralName<'_>]) -> String {
    let mut text = names
        .iter()
        .take(3)
        .map(|name| format!("{name:?}"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > 3 {
        text.push_str(&format!(" and {} more", names.len() - 3));
    }
    text.chars().take(300).collect()
}

fn certificates(pem: &str, file: &str) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| anyhow!("{file} is not a list of certificates in PEM: {error}"))
}

/// Checks that key, issuer and root belong together; until when the issuer counts.
fn check_issuer(
    issuer: &CertificateDer<'_>,
    root: &CertificateDer<'_>,
    key: &KeyPair,
) -> Result<OffsetDateTime> {
    let (_, issuer) =
        x509_parser::parse_x509_certificate(issuer).context("the issuer is not a certificate")?;
    let (_, root) =
        x509_parser::parse_x509_certificate(root).context("the root is not a certificate")?;
    if issuer.public_key().raw != key.subject_public_key_info().as_slice() {
        bail!("{CA_KEY} is not the key of the issuer in {CA_CERT}");
    }
    issuer
        .verify_signature(Some(root.public_key()))
        .map_err(|_| anyhow!("the issuer in {CA_CERT} is not signed by the root below it"))?;
    let not_after = issuer
        .validity()
        .not_after
        .to_datetime()
        .min(root.validity().not_after.to_datetime());
    if not_after <= OffsetDateTime::now_utc() {
        bail!("root or issuer expired at {not_after}");
    }
    Ok(not_after)
}

/// The roots to trust; the file is written anew from `ca.crt` where it was lost.
fn trust_anchors(
    state: &StateDir,
    own: CertificateDer<'static>,
    ca_pem: &str,
) -> Result<Vec<CertificateDer<'static>>> {
    let Some(pem) = state.read(TRUST_ANCHORS, Secrecy::Public)? else {
        let root_at = ca_pem.rfind("-----BEGIN").unwrap_or(0);
        state.write(TRUST_ANCHORS, Secrecy::Public, &ca_pem[root_at..])?;
        return Ok(vec![own]);
    };
    let roots = certificates(&pem, TRUST_ANCHORS)?;
    if !roots.contains(&own) {
        bail!(
            "{TRUST_ANCHORS} does not list the root of {CA_CERT}: nobody would trust what is signed here"
        );
    }
    Ok(roots)
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;
