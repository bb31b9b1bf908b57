#![allow(clippy::unwrap_used)]
use super::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

/// A certificate that signs itself, with this name.
fn certificate(name: &str) -> (String, CertificateDer<'static>) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    (made.pem(), made.der().clone())
}

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn the_config_map_says_whom_to_believe_or_what_is_wrong_with_it() {
    let (pem, der) = certificate("front");
    let ca = ("requestheader-client-ca-file", pem.as_str());
    let least = Trust::read(&data(&[ca])).unwrap();
    assert_eq!((least.roots, least.names.len()), (vec![der], 0));
    assert_eq!(least.user_headers, ["X-Remote-User"]);
    let said = data(&[
        ca,
        ("requestheader-allowed-names", r#"["front"]"#),
        ("requestheader-username-headers", r#"["X-User"]"#),
    ]);
    let said = Trust::read(&said).unwrap();
    assert_eq!(
        (said.names, said.user_headers),
        (vec!["front".into()], vec!["X-User".into()])
    );
    for (pairs, part) in [
        (vec![], "aggregation is off"),
        (
            vec![("requestheader-client-ca-file", "x")],
            "has no certificate",
        ),
        (
            vec![ca, ("requestheader-allowed-names", "front")],
            "not a list",
        ),
    ] {
        let error = Trust::read(&data(&pairs)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[derive(Debug)]
struct Nothing;

impl ResolvesServerCert for Nothing {
    fn resolve(
        &self,
        _: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
}

#[test]
fn d41_only_the_front_proxy_is_believed_and_only_if_it_names_somebody() {
    let (pem, ours) = certificate("front");
    let (_, other) = certificate("else");
    let door = |names: &str| {
        let said = data(&[
            ("requestheader-client-ca-file", &pem),
            ("requestheader-allowed-names", names),
        ]);
        Door::new(
            Some(Arc::new(Trust::read(&said).unwrap())),
            Arc::new(Nothing),
        )
        .unwrap()
    };
    let mut named = HeaderMap::new();
    named.insert("x-remote-user", "ann".parse().unwrap());
    let mut empty = HeaderMap::new();
    empty.insert("x-remote-user", "".parse().unwrap());
    let told = |door: &Door, shown: Option<&CertificateDer<'_>>, headers: &HeaderMap| {
        door.user(shown, headers)
            .map_err(|refusal| refusal.code.as_u16())
    };
    let one = door(r#"["front"]"#);
    assert_eq!(told(&one, Some(&ours), &named), Ok("ann".into()));
    assert_eq!(told(&one, Some(&other), &named), Err(401));
    assert_eq!(told(&one, None, &named), Err(401));
    assert_eq!(told(&one, Some(&ours), &HeaderMap::new()), Err(401));
    assert_eq!(told(&one, Some(&ours), &empty), Err(401));
    // Without names every certificate of the authority counts; TLS has checked that it is one.
    assert_eq!(told(&door("[]"), Some(&other), &named), Ok("ann".into()));
    let nobody = Door::new(None, Arc::new(Nothing)).unwrap();
    assert_eq!(told(&nobody, Some(&ours), &named), Err(401));
}
