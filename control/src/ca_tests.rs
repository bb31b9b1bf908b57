//! The authority: what is signed, and each reason not to.
#![allow(clippy::unwrap_used)]

use super::*;
use std::fs;
use std::time::UNIX_EPOCH;
use x509_parser::prelude::X509Certificate;

const ID: &str = "spiffe://cluster.local/ns/default/sa/web";
const TTL: Duration = Duration::from_secs(3600);

fn state() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    (dir, state)
}

fn ca() -> (tempfile::TempDir, Ca) {
    let (dir, state) = state();
    let ca = Ca::open_or_create(&state, "cluster.local").unwrap();
    (dir, ca)
}

fn id() -> SpiffeId {
    ID.parse().unwrap()
}

fn pod() -> PodRef {
    PodRef::new("default", "web-1")
}

fn csr_with(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    change(&mut params);
    params.serialize_request(key).unwrap().der().to_vec()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn ask(ca: &Ca, csr: &[u8]) -> Result<Leaf, CsrError> {
    ca.issue_leaf(csr, &id(), &pod(), TTL, SystemTime::now())
}

fn parsed(der: &[u8]) -> X509Certificate<'_> {
    x509_parser::parse_x509_certificate(der).unwrap().1
}

#[test]
fn a_leaf_is_what_a_workload_needs_and_no_more() {
    let (_dir, ca) = ca();
    let key = KeyPair::generate().unwrap();
    let now = SystemTime::now();
    let csr = csr_with(&key, |params| {
        params.subject_alt_names = vec![uri(ID)];
        params
            .distinguished_name
            .push(DnType::CommonName, "not copied");
    });
    let issued = ca.issue_leaf(&csr, &id(), &pod(), TTL, now).unwrap();
    let leaf = parsed(&issued.chain[0]);
    let seconds = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(issued.chain.len(), 2);
    assert_eq!(leaf.validity().not_before.timestamp() as u64, seconds - 60);
    assert_eq!(leaf.validity().not_after.timestamp() as u64, seconds + 3600);
    assert_eq!(issued.not_after, seconds + 3600);
    let subject = leaf.subject();
    let name = subject.iter_common_name().next().unwrap().as_str();
    assert_eq!((subject.iter().count(), name), (1, Ok("default/web-1")));
    assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names, [GeneralName::URI(ID)]);
    assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any && usage.other.is_empty());
    let serials: std::collections::HashSet<String> =
        (0..50).map(|_| ask(&ca, &csr).unwrap().serial).collect();
    assert_eq!(serials.len(), 50);
    assert!(serials.iter().all(|serial| serial.len() == 32));
}

#[test]
fn the_chain_leads_to_the_root_and_to_no_other() {
    let (_dir, ours) = ca();
    let (_other_dir, other) = ca();
    let leaf = ask(&ours, &csr_with(&KeyPair::generate().unwrap(), |_| {})).unwrap();
    let now = rustls_pki_types::UnixTime::now();
    let verify = |roots: &[CertificateDer<'static>]| {
        let anchors: Vec<_> = roots
            .iter()
            .map(|root| webpki::anchor_from_trusted_cert(root).unwrap())
            .collect();
        webpki::EndEntityCert::try_from(&leaf.chain[0])
            .unwrap()
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                &leaf.chain[1..],
                now,
                webpki::KeyUsage::client_auth(),
                None,
                None,
            )
            .map(drop)
    };
    assert_eq!(verify(&ours.roots()), Ok(()));
    assert_eq!(verify(&other.roots()), Err(webpki::Error::UnknownIssuer));
}

#[test]
fn requests_are_judged_by_their_names() {
    let (_dir, ca) = ca();
    let key = KeyPair::generate().unwrap();
    let dns = || SanType::DnsName("web".try_into().unwrap());
    let table: [(Vec<SanType>, bool); 9] = [
        (vec![], true),
        (vec![uri(ID)], true),
        (
            vec![uri("spiffe://cluster.local/ns/default/sa/admin")],
            false,
        ),
        (vec![uri("spiffe://cluster.local/ns/other/sa/web")], false),
        (vec![uri("spiffe://other/ns/default/sa/web")], false),
        (
            vec![uri(ID), uri("spiffe://cluster.local/ns/default/sa/admin")],
            false,
        ),
        (vec![uri(ID), dns()], false),
        (vec![dns()], false),
        (vec![SanType::IpAddress([10, 0, 0, 1].into())], false),
    ];
    for (names, good) in table {
        let csr = csr_with(&key, |params| params.subject_alt_names = names.clone());
        match ask(&ca, &csr) {
            Ok(_) => assert!(good, "{names:?}"),
            Err(error) => assert!(
                !good && matches!(error, CsrError::Name { .. }),
                "{names:?}: {error}"
            ),
        }
    }
}

#[test]
fn requests_are_judged_by_their_keys() {
    let (_dir, ca) = ca();
    let table = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, None),
        (&rcgen::PKCS_ECDSA_P384_SHA384, None),
        (&rcgen::PKCS_ED25519, None),
        (&rcgen::PKCS_ECDSA_P521_SHA512, Some(CsrError::Key)),
        (&rcgen::PKCS_RSA_SHA256, Some(CsrError::Key)),
    ];
    for (algorithm, expected) in table {
        let csr = csr_with(&KeyPair::generate_for(algorithm).unwrap(), |_| {});
        assert_eq!(ask(&ca, &csr).err(), expected, "{algorithm:?}");
    }
}

#[test]
fn an_authority_is_never_made() {
    let (_dir, ca) = ca();
    let key = KeyPair::generate().unwrap();
    for (is_ca, expected) in [
        (IsCa::NoCa, None),
        (IsCa::ExplicitNoCa, None),
        (
            IsCa::Ca(BasicConstraints::Unconstrained),
            Some(CsrError::Authority),
        ),
        (
            IsCa::Ca(BasicConstraints::Constrained(0)),
            Some(CsrError::Authority),
        ),
    ] {
        let csr = csr_with(&key, |params| params.is_ca = is_ca);
        assert_eq!(ask(&ca, &csr).err(), expected, "{is_ca:?}");
    }
}

#[test]
fn a_request_with_a_changed_byte_is_refused() {
    let (_dir, ca) = ca();
    let csr = csr_with(&KeyPair::generate().unwrap(), |params| {
        params.subject_alt_names = vec![uri(ID)]
    });
    let signed = X509CertificationRequest::from_der(&csr)
        .unwrap()
        .1
        .certification_request_info
        .raw
        .to_vec();
    let start = csr
        .windows(signed.len())
        .position(|part| part == signed)
        .unwrap();
    for place in start..start + signed.len() {
        let mut changed = csr.clone();
        changed[place] ^= 1;
        assert!(ask(&ca, &changed).is_err(), "byte {place}");
    }
    let longer = [csr.as_slice(), &[0]].concat();
    for junk in [&[][..], b"junk", &longer, &vec![0x30; MAX_CSR + 1]] {
        assert_eq!(ask(&ca, junk).err(), Some(CsrError::Malformed));
    }
}

#[test]
fn a_leaf_never_outlives_its_issuer() {
    let (_dir, ca) = ca();
    let csr = csr_with(&KeyPair::generate().unwrap(), |_| {});
    let ends = ca.held().issuer_not_after;
    let end = SystemTime::from(ends);
    let issued = ca
        .issue_leaf(&csr, &id(), &pod(), TTL, end - Duration::from_secs(100))
        .unwrap();
    assert_eq!(issued.not_after, ends.unix_timestamp() as u64);
    assert_eq!(
        ca.issue_leaf(&csr, &id(), &pod(), TTL, end).err(),
        Some(CsrError::IssuerExpired)
    );
}

#[test]
fn the_authority_is_made_once_and_survives() {
    let (_dir, state) = state();
    let roots: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| Ca::open_or_create(&state, "cluster.local").unwrap().roots()))
            .collect();
        started
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
    fs::remove_file(state.trust_anchors()).unwrap();
    assert_eq!(
        Ca::open_or_create(&state, "cluster.local").unwrap().roots(),
        roots[0]
    );
    let rewritten = fs::read_to_string(state.trust_anchors()).unwrap();
    assert_eq!(certificates(&rewritten, "").unwrap(), roots[0]);
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let (_other_dir, other) = state();
    Ca::open_or_create(&other, "cluster.local").unwrap();
    let text = |name| fs::read_to_string(other.path().join(name)).unwrap();
    let first_of = |pem: &str| pem[..pem.rfind("-----BEGIN").unwrap()].to_owned();
    let break_with = |name: &str, secrecy, content: Option<&str>| {
        let (_dir, state) = state();
        Ca::open_or_create(&state, "cluster.local").unwrap();
        match content {
            Some(content) => state.write(name, secrecy, content).unwrap(),
            None => fs::remove_file(state.path().join(name)).unwrap(),
        }
        format!(
            "{:#}",
            Ca::open_or_create(&state, "cluster.local").unwrap_err()
        )
    };
    let (private, public) = (Secrecy::Private, Secrecy::Public);
    let table = [
        (CA_KEY, private, None, "ca.key is missing"),
        (
            CA_KEY,
            private,
            Some("junk".to_owned()),
            "ca.key is not a private key",
        ),
        (
            CA_KEY,
            private,
            Some(text(CA_KEY)),
            "is not the key of the issuer",
        ),
        (CA_KEY, public, Some(text(CA_KEY)), "others can read"),
        (
            CA_CERT,
            public,
            Some(String::new()),
            "must hold the issuer and then its root",
        ),
        (
            CA_CERT,
            public,
            Some(first_of(&text(CA_CERT))),
            "must hold the issuer and then its root",
        ),
        (
            TRUST_ANCHORS,
            public,
            Some(text(TRUST_ANCHORS)),
            "does not list the root",
        ),
    ];
    for (name, secrecy, content, expected) in table {
        let error = break_with(name, secrecy, content.as_deref());
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn a_second_root_is_trusted_during_a_rotation() {
    let ((_dir, state), (_other_dir, other)) = (state(), state());
    let ours = Ca::open_or_create(&state, "cluster.local").unwrap();
    let theirs = Ca::open_or_create(&other, "cluster.local").unwrap();
    let both = [state.trust_anchors(), other.trust_anchors()]
        .map(|path| fs::read_to_string(path).unwrap())
        .concat();
    state.write(TRUST_ANCHORS, Secrecy::Public, &both).unwrap();
    let trusted = Ca::open_or_create(&state, "cluster.local").unwrap();
    assert_eq!(trusted.roots(), [ours.roots(), theirs.roots()].concat());
    assert_eq!(trusted.trust().roots.len(), 2);
}

#[test]
fn every_pod_has_a_common_name_of_its_own() {
    assert_eq!(common_name(&pod()), "default/web-1");
    let long = |last: &str| PodRef::new("n".repeat(63), "p".repeat(252) + last);
    let (a, b) = (common_name(&long("a")), common_name(&long("b")));
    assert!(a != b && a.len() <= MAX_COMMON_NAME && a.starts_with("sha256:"));
    let (_dir, ca) = ca();
    let csr = csr_with(&KeyPair::generate().unwrap(), |_| {});
    let leaf = ca.issue_leaf(&csr, &id(), &long("a"), TTL, SystemTime::now());
    let leaf = leaf.unwrap();
    let names = parsed(&leaf.chain[0]);
    let name = names.subject().iter_common_name().next().unwrap();
    assert_eq!(name.as_str(), Ok(a.as_str()));
}
