//! Handshakes in memory between workloads of made-up CAs: the good one, and every way it can be wrong.
#![allow(clippy::unwrap_used)]

use super::verify::PeerError;
use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls_pki_types::{PrivateKeyDer, ServerName, UnixTime};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub(crate) const DOMAIN: &str = "cluster.local";

/// A certificate authority made for a test.
pub(crate) struct TestCa {
    pub(crate) root: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().to_vec();
        Self {
            root,
            issuer: Issuer::new(params, key),
        }
    }

    /// For these URIs, valid from `from` to `to` (seconds relative to now).
    pub(crate) fn issue(&self, uris: &[&str], from: i64, to: i64) -> Issued {
        let key = KeyPair::generate().unwrap();
        let cert = self
            .params(uris, from, to)
            .signed_by(&key, &self.issuer)
            .unwrap();
        Issued {
            chain: vec![cert.der().to_vec()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    /// Signs the key of a CSR for `uri`, as the controller does.
    pub(crate) fn certify(&self, csr: &[u8], uri: &str, from: i64, to: i64) -> Vec<u8> {
        let request =
            rcgen::CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        self.params(&[uri], from, to)
            .signed_by(&request.public_key, &self.issuer)
            .unwrap()
            .der()
            .to_vec()
    }

    fn params(&self, uris: &[&str], from: i64, to: i64) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now + time::Duration::seconds(from);
        params.not_after = now + time::Duration::seconds(to);
        params
    }
}

pub(crate) fn id(account: &str) -> SpiffeId {
    SpiffeId::new(DOMAIN, "default", account).unwrap()
}

/// A workload with a certificate for these seconds, which trusts `roots`.
pub(crate) fn workload(
    ca: &TestCa,
    account: &str,
    (from, to): (i64, i64),
    roots: &[&TestCa],
) -> Tls {
    let issued = ca.issue(&[id(account).as_str()], from, to);
    let tls = Tls::new(DOMAIN, roots.iter().map(|ca| ca.root.clone()).collect());
    tls.set_certificate(id(account), issued.chain, issued.key)
        .unwrap();
    tls
}

pub(crate) const GOOD: (i64, i64) = (-3600, 3600);

type Ends = (
    std::io::Result<client::TlsStream<DuplexStream>>,
    std::io::Result<server::TlsStream<DuplexStream>>,
);

/// Both ends of a handshake. The client hears of a refusal only when it reads, so it reads one byte.
async fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Ends {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::IpAddress(std::net::IpAddr::from([10, 0, 0, 1]).into());
    let connect = async {
        let mut tls = TlsConnector::from(client).connect(name, near).await?;
        tls.read_exact(&mut [0]).await?;
        Ok(tls)
    };
    let accept = async {
        let mut tls = TlsAcceptor::from(server).accept(far).await?;
        tls.write_all(b"!").await?;
        Ok(tls)
    };
    tokio::join!(connect, accept)
}

/// What the client, and what the server says about a handshake where the client expects `web`.
async fn verdicts(client: &Tls, server: &Tls) -> (Result<(), PeerError>, Result<(), PeerError>) {
    let config = client.client(&id("web"), Alpn::Http2).unwrap();
    let (c, s) = shake(config, server.server().unwrap()).await;
    (
        c.map(drop).map_err(|e| PeerError::of(&e)),
        s.map(drop).map_err(|e| PeerError::of(&e)),
    )
}

#[test]
fn the_hybrid_key_exchange_and_the_fast_cipher_come_first() {
    let provider = provider();
    let groups: Vec<_> = provider
        .kx_groups
        .iter()
        .map(|group| group.name())
        .collect();
    assert_eq!(groups[0], rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(groups[1], rustls::NamedGroup::X25519);
    assert_eq!(
        provider.cipher_suites[0].suite(),
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
    );
    assert!(
        provider
            .cipher_suites
            .iter()
            .all(|suite| suite.version().version == rustls::ProtocolVersion::TLSv1_3)
    );
}

#[tokio::test]
async fn two_workloads_of_one_mesh_know_each_other() {
    let ca = TestCa::new();
    let (api, web) = (
        workload(&ca, "api", GOOD, &[&ca]),
        workload(&ca, "web", GOOD, &[&ca]),
    );
    let config = api.client(&id("web"), Alpn::Opaque).unwrap();
    let (client, server) = shake(config, web.server().unwrap()).await;
    let (client, server) = (client.unwrap(), server.unwrap());
    assert_eq!(
        client.get_ref().1.alpn_protocol(),
        Some(names::alpn::OPAQUE)
    );
    let group = client
        .get_ref()
        .1
        .negotiated_key_exchange_group()
        .unwrap()
        .name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    let peer = verify::peer(
        server.get_ref().1.peer_certificates(),
        DOMAIN,
        UnixTime::now(),
    );
    assert_eq!(peer, Ok(id("api")));
}

#[tokio::test]
async fn every_wrong_server_certificate_has_its_own_reason() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let api = workload(&ca, "api", GOOD, &[&ca]);
    let table = [
        (
            workload(&ca, "web", (-7200, -3600), &[&ca]),
            PeerError::Expired,
        ),
        (
            workload(&ca, "web", (3600, 7200), &[&ca]),
            PeerError::NotYetValid,
        ),
        (workload(&other, "web", GOOD, &[&ca]), PeerError::UnknownCa),
        (workload(&ca, "db", GOOD, &[&ca]), PeerError::WrongIdentity),
    ];
    for (server, reason) in table {
        let (client, server) = verdicts(&api, &server).await;
        assert_eq!((client, server), (Err(reason), Err(PeerError::OursRefused)));
    }
}

#[tokio::test]
async fn every_wrong_client_certificate_has_its_own_reason() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let web = workload(&ca, "web", GOOD, &[&ca]);
    let table = [
        (
            workload(&ca, "api", (-7200, -3600), &[&ca]),
            PeerError::Expired,
        ),
        (
            workload(&ca, "api", (3600, 7200), &[&ca]),
            PeerError::NotYetValid,
        ),
        (workload(&other, "api", GOOD, &[&ca]), PeerError::UnknownCa),
    ];
    for (client, reason) in table {
        let (client, server) = verdicts(&client, &web).await;
        assert_eq!((client, server), (Err(PeerError::OursRefused), Err(reason)));
    }
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let ca = TestCa::new();
    let web = workload(&ca, "web", GOOD, &[&ca]);
    let nobody = Tls::new(DOMAIN, vec![ca.root.clone()]);
    let current = nobody.0.current.load();
    let config = nobody
        .0
        .client(&current.trust, &id("web"), None, Alpn::Http2.offered())
        .unwrap();
    let (_, server) = shake(Arc::new(config), web.server().unwrap()).await;
    assert_eq!(PeerError::of(&server.unwrap_err()), PeerError::Absent);
}

#[tokio::test]
async fn a_foreign_protocol_is_not_accepted() {
    let ca = TestCa::new();
    let (api, web) = (
        workload(&ca, "api", GOOD, &[&ca]),
        workload(&ca, "web", GOOD, &[&ca]),
    );
    let mut config = ClientConfig::clone(&api.client(&id("web"), Alpn::Http2).unwrap());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (client, server) = shake(Arc::new(config), web.server().unwrap()).await;
    assert!(client.is_err() && server.is_err());
}

#[tokio::test]
async fn clocks_may_differ_by_a_minute() {
    let ca = TestCa::new();
    let api = workload(&ca, "api", (30, 3600), &[&ca]);
    let web = workload(&ca, "web", (-3600, -30), &[&ca]);
    assert_eq!(verdicts(&api, &web).await, (Ok(()), Ok(())));
}

#[tokio::test]
async fn sessions_are_resumed_until_the_certificate_or_the_roots_change() {
    let (ca, next) = (TestCa::new(), TestCa::new());
    let (api, web) = (
        workload(&ca, "api", GOOD, &[&ca]),
        workload(&ca, "web", GOOD, &[&ca]),
    );
    let resumed = async || {
        let config = api.client(&id("web"), Alpn::Http2).unwrap();
        let (client, server) = shake(config, web.server().unwrap()).await;
        let peer = verify::peer(
            server.unwrap().get_ref().1.peer_certificates(),
            DOMAIN,
            UnixTime::now(),
        );
        assert_eq!(
            peer,
            Ok(id("api")),
            "a resumed session still says who it is"
        );
        client.unwrap().get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    };
    assert!(!resumed().await);
    assert!(resumed().await);
    let renewed = ca.issue(&[id("web").as_str()], GOOD.0, GOOD.1);
    web.set_certificate(id("web"), renewed.chain, renewed.key)
        .unwrap();
    assert!(
        !resumed().await,
        "tickets of the old certificate are of no use"
    );
    assert!(resumed().await);
    api.set_roots(vec![ca.root.clone(), next.root.clone()]);
    assert!(!resumed().await, "new roots mean a full handshake");
}

#[tokio::test]
async fn early_data_is_neither_sent_nor_taken() {
    let ca = TestCa::new();
    let (api, web) = (
        workload(&ca, "api", GOOD, &[&ca]),
        workload(&ca, "web", GOOD, &[&ca]),
    );
    let ours = api.client(&id("web"), Alpn::Http2).unwrap();
    assert!(!ours.enable_early_data);
    assert_eq!(web.server().unwrap().max_early_data_size, 0);
    // One that would send some is never told that it may.
    let mut eager = ClientConfig::clone(&ours);
    eager.enable_early_data = true;
    let eager = Arc::new(eager);
    for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
        let (client, server) = shake(eager.clone(), web.server().unwrap()).await;
        server.unwrap();
        let client = client.unwrap();
        let client = client.get_ref().1;
        assert_eq!(client.handshake_kind(), Some(kind));
        assert!(!client.is_early_data_accepted());
    }
    let name = ServerName::IpAddress(std::net::IpAddr::from([10, 0, 0, 1]).into());
    let mut third = rustls::ClientConnection::new(eager, name).unwrap();
    assert!(third.early_data().is_none(), "no ticket allows any");
}

#[tokio::test]
async fn a_tickets_life_ends_with_the_certificate_it_stands_for() {
    let ca = TestCa::new();
    let chain: Vec<_> = ca
        .issue(&[id("api").as_str()], -60, 600)
        .chain
        .into_iter()
        .map(Into::into)
        .collect();
    let at = |seconds| {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        verify::peer(
            Some(&chain),
            DOMAIN,
            UnixTime::since_unix_epoch(now + Duration::from_secs(seconds)),
        )
    };
    assert_eq!(at(0), Ok(id("api")));
    assert_eq!(at(720), Err(PeerError::Expired));
    assert_eq!(
        verify::peer(None, DOMAIN, UnixTime::now()),
        Err(PeerError::Absent)
    );
}

#[test]
fn a_workload_has_exactly_one_name_of_its_trust_domain() {
    let ca = TestCa::new();
    let named =
        |uris: &[&str]| verify::workload(&ca.issue(uris, -60, 60).chain[0].clone().into(), DOMAIN);
    let (one, two) = (
        "spiffe://cluster.local/ns/a/sa/b",
        "spiffe://cluster.local/ns/a/sa/c",
    );
    assert_eq!(named(&[one]).unwrap().as_str(), one);
    for wrong in [
        &[][..],
        &[one, two],
        &["https://cluster.local/ns/a/sa/b"],
        &["spiffe://other.mesh/ns/a/sa/b"],
    ] {
        assert_eq!(named(wrong), Err(PeerError::NotAWorkload), "{wrong:?}");
    }
}

#[tokio::test]
async fn two_roots_are_trusted_while_one_replaces_the_other() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let api = workload(&old, "api", GOOD, &[&old, &new]);
    let web = workload(&new, "web", GOOD, &[&old, &new]);
    assert_eq!(verdicts(&api, &web).await, (Ok(()), Ok(())));
    web.set_roots(vec![new.root.clone()]);
    assert_eq!(verdicts(&api, &web).await.1, Err(PeerError::UnknownCa));
}

#[test]
fn without_a_certificate_there_is_no_way_in_or_out() {
    let ca = TestCa::new();
    let web = workload(&ca, "web", GOOD, &[&ca]);
    web.drop_certificate();
    assert!(
        web.server().is_none()
            && web.client(&id("api"), Alpn::Http2).is_none()
            && web.identity().is_none()
    );
    assert!(web.controller(Credentials::Workload).is_none());
    assert!(
        web.controller(Credentials::Token).is_some(),
        "the way to a new one stays open"
    );
}
