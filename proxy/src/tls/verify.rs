//! A peer certificate becomes a workload identity, or a reason why not.
//!
//! Workloads are identified by their SPIFFE id alone (one URI SAN, no DNS name), so rustls's own verifiers, which look
//! for host names, do not fit: the chain is checked by webpki, the name by us, literally.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage};
use weft_proxy_api::identity::SpiffeId;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How far the clocks of two machines may be apart.
const SKEW: Duration = Duration::from_secs(60);

/// Why a peer's certificate was not accepted (or ours was not, by the peer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PeerError {
    /// The peer showed none.
    #[error("the peer showed no certificate")]
    Absent,
    /// Its time is over.
    #[error("the peer's certificate has expired")]
    Expired,
    /// Its time has not begun.
    #[error("the peer's certificate is not valid yet")]
    NotYetValid,
    /// It does not lead to a root of the mesh.
    #[error("the peer's certificate was not issued by this mesh")]
    UnknownCa,
    /// It names somebody else than expected.
    #[error("the peer is somebody else than expected")]
    WrongIdentity,
    /// It does not name exactly one workload of the trust domain.
    #[error("the peer's certificate does not name exactly one workload of this mesh")]
    NotAWorkload,
    /// It is broken in another way.
    #[error("the peer's certificate is malformed or not fit for its use")]
    Malformed,
    /// The peer did not accept ours.
    #[error("the peer did not accept our certificate")]
    OursRefused,
    /// The handshake failed before or beside certificates.
    #[error("the handshake failed")]
    Handshake,
}

impl PeerError {
    /// Label for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            PeerError::Absent => "absent",
            PeerError::Expired => "expired",
            PeerError::NotYetValid => "not_yet_valid",
            PeerError::UnknownCa => "unknown_ca",
            PeerError::WrongIdentity => "wrong_identity",
            PeerError::NotAWorkload => "not_a_workload",
            PeerError::Malformed => "malformed",
            PeerError::OursRefused => "ours_refused",
            PeerError::Handshake => "handshake",
        }
    }

    /// The reason among all others for which connections are refused: those of `weft_policy_denied_total`.
    pub fn counted(self) -> &'static str {
        match self {
            PeerError::Absent => "tls_absent",
            PeerError::Expired => "tls_expired",
            PeerError::NotYetValid => "tls_not_yet_valid",
            PeerError::UnknownCa => "tls_unknown_ca",
            PeerError::WrongIdentity => "tls_wrong_identity",
            PeerError::NotAWorkload => "tls_not_a_workload",
            PeerError::Malformed => "tls_malformed",
            PeerError::OursRefused => "tls_ours_refused",
            PeerError::Handshake => "tls_handshake",
        }
    }

    /// The reason inside what a failed handshake returned.
    pub fn of(error: &std::io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        inner.map_or(PeerError::Handshake, Self::of_rustls)
    }

    fn of_rustls(error: &rustls::Error) -> Self {
        use rustls::AlertDescription as Alert;
        match error {
            rustls::Error::NoCertificatesPresented => PeerError::Absent,
            rustls::Error::InvalidCertificate(reason) => Self::of_certificate(reason),
            rustls::Error::AlertReceived(
                Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRequired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied,
            ) => PeerError::OursRefused,
            _ => PeerError::Handshake,
        }
    }

    fn of_certificate(reason: &CertificateError) -> Self {
        match reason {
            CertificateError::Expired => PeerError::Expired,
            CertificateError::NotValidYet => PeerError::NotYetValid,
            CertificateError::UnknownIssuer => PeerError::UnknownCa,
            CertificateError::NotValidForName => PeerError::WrongIdentity,
            CertificateError::Other(OtherError(inner)) => inner
                .downcast_ref()
                .copied()
                .unwrap_or(PeerError::Malformed),
            _ => PeerError::Malformed,
        }
    }
}

/// As rustls wants it, so that the peer gets the fitting alert.
impl From<PeerError> for rustls::Error {
    fn from(error: PeerError) -> Self {
        rustls::Error::InvalidCertificate(match error {
            PeerError::Expired => CertificateError::Expired,
            PeerError::NotYetValid => CertificateError::NotValidYet,
            PeerError::UnknownCa => CertificateError::UnknownIssuer,
            PeerError::WrongIdentity => CertificateError::NotValidForName,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    }
}

/// Can at least one of these certificates (DER) be a root? A mesh without roots cuts every connection.
pub fn has_root(certificates: &[Vec<u8>]) -> bool {
    certificates.iter().any(|der| {
        let der = CertificateDer::from(der.as_slice());
        webpki::anchor_from_trusted_cert(&der).is_ok()
    })
}

/// The roots of the mesh and the trust domain: what makes a certificate one of ours.
#[derive(Debug)]
pub struct Trust {
    domain: String,
    anchors: Vec<TrustAnchor<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    /// From certificates (DER). The ones that cannot be a root are left out and said.
    pub fn new(domain: &str, roots: &[Vec<u8>], provider: Arc<CryptoProvider>) -> Self {
        let anchor = |der: &Vec<u8>| {
            let der = CertificateDer::from(der.as_slice());
            let anchor = webpki::anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned());
            anchor
                .inspect_err(|error| tracing::warn!(%error, "a root certificate cannot be used"))
                .ok()
        };
        Self {
            domain: domain.to_owned(),
            anchors: roots.iter().filter_map(anchor).collect(),
            provider,
        }
    }

    /// The workload a certificate proves, if its chain leads to a root and its time is now.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<SpiffeId, PeerError> {
        let cert = EndEntityCert::try_from(leaf).map_err(|_| PeerError::Malformed)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let check = |at: UnixTime| {
            let chain = cert.verify_for_usage(
                algorithms,
                &self.anchors,
                intermediates,
                at,
                usage,
                None,
                None,
            );
            chain.map(|_| ())
        };
        let checked = match check(now) {
            Err(webpki::Error::CertExpired { .. }) => check(earlier(now)),
            Err(webpki::Error::CertNotValidYet { .. }) => check(later(now)),
            other => other,
        };
        checked.map_err(reason)?;
        workload(leaf, &self.domain)
    }
}

fn reason(error: webpki::Error) -> PeerError {
    match error {
        webpki::Error::CertExpired { .. } => PeerError::Expired,
        webpki::Error::CertNotValidYet { .. } => PeerError::NotYetValid,
        webpki::Error::UnknownIssuer => PeerError::UnknownCa,
        // A CA of the same name with another key.
        webpki::Error::InvalidSignatureForPublicKey => PeerError::UnknownCa,
        _ => PeerError::Malformed,
    }
}

fn earlier(now: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(
        now.as_secs().saturating_sub(SKEW.as_secs()),
    ))
}

fn later(now: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(
        now.as_secs().saturating_add(SKEW.as_secs()),
    ))
}

/// The workload a certificate names: exactly one URI SAN, a SPIFFE id of `domain`. Nothing is verified here.
pub fn workload(leaf: &CertificateDer<'_>, domain: &str) -> Result<SpiffeId, PeerError> {
    let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| PeerError::Malformed)?;
    let names = cert
        .subject_alternative_name()
        .map_err(|_| PeerError::Malformed)?
        .ok_or(PeerError::NotAWorkload)?;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(PeerError::NotAWorkload);
    };
    let id: SpiffeId = uri.parse().map_err(|_| PeerError::NotAWorkload)?;
    if id.trust_domain() == domain {
        Ok(id)
    } else {
        Err(PeerError::NotAWorkload)
    }
}

/// From when to when a certificate is valid, seconds since 1970.
pub fn validity(leaf: &CertificateDer<'_>) -> Result<(i64, i64), PeerError> {
    let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| PeerError::Malformed)?;
    Ok((
        cert.validity().not_before.timestamp(),
        cert.validity().not_after.timestamp(),
    ))
}

/// The identity of the peer of a finished handshake, full or resumed.
///
/// A resumed session is not verified again by rustls, so the time is looked at here: a ticket must not outlive the
/// certificate it stands for.
pub fn peer(
    chain: Option<&[CertificateDer<'_>]>,
    domain: &str,
    now: UnixTime,
) -> Result<SpiffeId, PeerError> {
    let leaf = chain
        .and_then(|chain| chain.first())
        .ok_or(PeerError::Absent)?;
    let (_, not_after) = validity(leaf)?;
    if i64::try_from(earlier(now).as_secs()).unwrap_or(i64::MAX) > not_after {
        return Err(PeerError::Expired);
    }
    workload(leaf, domain)
}

/// Accepts any workload of the mesh as client; policy judges who may do what.
#[derive(Debug)]
pub struct ClientVerifier(pub Arc<Trust>);

/// Accepts exactly one workload as server.
#[derive(Debug)]
pub struct ServerVerifier {
    /// What is ours.
    pub trust: Arc<Trust>,
    /// Whom we called.
    pub expected: SpiffeId,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0
            .verify(leaf, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0
            .provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let id = self
            .trust
            .verify(leaf, intermediates, now, KeyUsage::server_auth())?;
        if id == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(PeerError::WrongIdentity.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust
            .provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
