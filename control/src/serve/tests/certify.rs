//! Getting a certificate, and not getting one; and the TLS in front of it.

use super::*;

fn claims(pod: &str, account: &str) -> TokenClaims {
    TokenClaims::for_pod(
        &PodRef::new("default", pod),
        account,
        SystemTime::now(),
        Duration::from_secs(60),
    )
}

fn csr(key: &KeyPair, names: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names
        .iter()
        .map(|name| SanType::URI((*name).try_into().unwrap()))
        .collect();
    params.serialize_request(key).unwrap().der().to_vec()
}

async fn certify(
    controller: &Controller,
    csr: Vec<u8>,
    token: String,
) -> Result<pb::CertifyResponse, tonic::Status> {
    let mut client = IdentityClient::new(controller.channel(None).await);
    client
        .certify(pb::CertifyRequest { csr, token })
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_token_becomes_a_certificate_that_the_controller_takes() {
    let controller = Controller::start().await;
    let key = KeyPair::generate().unwrap();
    let token = controller
        .shared
        .tokens
        .own()
        .unwrap()
        .issue(&claims("web-1", "web"))
        .unwrap();
    let answer = certify(&controller, csr(&key, &[]), token).await.unwrap();
    let pod = PodRef::new("default", "web-1");
    assert!(controller.table.enrolled.lock().contains(&pod));
    assert!(
        controller.state.enrolled().unwrap().contains(&pod),
        "remembered over a restart"
    );
    assert_eq!(answer.roots, controller.shared.ca.trust().roots);

    let chain = answer.chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let channel = controller.channel(Some((chain, key))).await;
    let answers = PolicyClient::new(channel)
        .sync(tokio_stream::empty())
        .await
        .unwrap();
    let status = answers.into_inner().message().await.unwrap_err();
    assert_eq!(
        status.code(),
        Code::InvalidArgument,
        "it got as far as the missing hello: {status}"
    );
}

#[tokio::test]
async fn everybody_else_gets_none_and_a_reason() {
    let controller = Controller::start().await;
    controller.table.add_pod("db-1", "db");
    let shared = &controller.shared;
    let issue = |pod, account| {
        shared
            .tokens
            .own()
            .unwrap()
            .issue(&claims(pod, account))
            .unwrap()
    };
    let key = KeyPair::generate().unwrap();
    let good = || csr(&key, &["spiffe://cluster.local/ns/default/sa/web"]);
    let mut expired = claims("web-1", "web");
    expired.exp = 1;
    let foreign_dir = tempfile::tempdir().unwrap();
    let foreign = TokenKey::open_or_create(&StateDir::open(foreign_dir.path()).unwrap()).unwrap();
    let admin = "spiffe://cluster.local/ns/default/sa/admin";
    let table = [
        (
            "csr_name",
            csr(&key, &[admin]),
            issue("web-1", "web"),
            Code::PermissionDenied,
        ),
        (
            "csr_malformed",
            b"junk".to_vec(),
            issue("web-1", "web"),
            Code::InvalidArgument,
        ),
        (
            "pod",
            good(),
            issue("web-1", "admin"),
            Code::FailedPrecondition,
        ),
        (
            "pod",
            good(),
            issue("db-1", "web"),
            Code::FailedPrecondition,
        ),
        (
            "token_malformed",
            good(),
            String::new(),
            Code::Unauthenticated,
        ),
        (
            "token_too_long",
            good(),
            "a".repeat(9 << 10),
            Code::Unauthenticated,
        ),
        (
            "token_expired",
            good(),
            shared.tokens.own().unwrap().issue(&expired).unwrap(),
            Code::Unauthenticated,
        ),
        (
            "token_signature",
            good(),
            foreign.issue(&claims("web-1", "web")).unwrap(),
            Code::Unauthenticated,
        ),
    ];
    for (label, csr, token, code) in table {
        let before = shared
            .counters
            .certificates_refused()
            .get(label)
            .copied()
            .unwrap_or_default();
        let status = certify(&controller, csr, token).await.unwrap_err();
        assert_eq!(status.code(), code, "{label}: {status}");
        assert_eq!(
            shared.counters.certificates_refused().get(label).copied(),
            Some(before + 1),
            "{label}"
        );
    }
    assert_eq!(shared.counters.certificates.get(), 0);
    assert!(controller.table.enrolled.lock().is_empty());
    certify(&controller, good(), issue("web-1", "web"))
        .await
        .unwrap();
}

#[tokio::test]
async fn no_pod_gets_the_identity_of_the_controller() {
    let controller = Controller::start().await;
    let id = own_identity("cluster.local").unwrap();
    let (pod, account) = (PodRef::new(id.namespace(), "web-1"), id.account());
    let info = PodInfo {
        service_account: account.into(),
        ips: vec![],
        meshed: true,
        uid: None,
    };
    controller.table.pods.lock().insert(pod.clone(), info);
    let claims = TokenClaims::for_pod(&pod, account, SystemTime::now(), Duration::from_secs(60));
    let tokens = &controller.shared.tokens;
    let token = tokens.own().unwrap().issue(&claims).unwrap();
    let key = KeyPair::generate().unwrap();
    let refused = certify(&controller, csr(&key, &[]), token).await;
    let status = refused.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("is the controller"), "{status}");
}

#[tokio::test]
async fn one_pod_that_asks_too_often_does_not_stop_another() {
    let controller = Controller::start().await;
    controller.table.add_pod("db-1", "db");
    let (key, tokens) = (KeyPair::generate().unwrap(), &controller.shared.tokens);
    let greedy = tokens
        .own()
        .unwrap()
        .issue(&claims("web-1", "web"))
        .unwrap();
    let (csr, started) = (csr(&key, &[]), Instant::now());
    let mut granted = 0;
    let status = loop {
        match certify(&controller, csr.clone(), greedy.clone()).await {
            Ok(_) => granted += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(
        (20..=21 + started.elapsed().as_secs()).contains(&granted),
        "{granted}"
    );
    certify(
        &controller,
        csr,
        tokens.own().unwrap().issue(&claims("db-1", "db")).unwrap(),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn certificates_that_are_not_of_the_mesh_do_not_get_in() {
    let controller = Controller::start().await;
    let other_dir = tempfile::tempdir().unwrap();
    let other =
        Ca::open_or_create(&StateDir::open(other_dir.path()).unwrap(), "cluster.local").unwrap();
    let id = SpiffeId::new("cluster.local", "default", "web").unwrap();
    let foreign_id = SpiffeId::new("other.domain", "default", "web").unwrap();
    let (ttl, now) = (Duration::from_secs(60), SystemTime::now());
    let long_ago = now - Duration::from_secs(3600);
    let table = [
        ("another root", other.issue_own(&id, ttl, now).unwrap()),
        (
            "another trust domain",
            controller
                .shared
                .ca
                .issue_own(&foreign_id, ttl, now)
                .unwrap(),
        ),
        (
            "expired",
            controller.shared.ca.issue_own(&id, ttl, long_ago).unwrap(),
        ),
    ];
    for (what, (leaf, key)) in table {
        let failed = match connect(controller.address, Some((leaf.chain, key))).await {
            Err(_) => true, // in TLS 1.3 the client may hear of it only with the first answer
            Ok(channel) => PolicyClient::new(channel)
                .sync(tokio_stream::empty())
                .await
                .is_err(),
        };
        assert!(failed, "{what}");
    }
    assert_eq!(controller.shared.counters.handshakes_failed.get(), 3);
    let channel = controller
        .channel(Some(controller.certificate("web", "web-1")))
        .await;
    assert!(
        PolicyClient::new(channel)
            .sync(tokio_stream::empty())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn junk_on_the_port_harms_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let controller = Controller::start().await;
    for junk in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"\x16\x03\x01\xff\xff",
        b"",
    ] {
        let mut tcp = TcpStream::connect(controller.address).await.unwrap();
        let _ = tcp.write_all(junk).await;
        let _ = tcp.shutdown().await;
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    }
    let token = controller
        .shared
        .tokens
        .own()
        .unwrap()
        .issue(&claims("web-1", "web"))
        .unwrap();
    certify(&controller, csr(&KeyPair::generate().unwrap(), &[]), token)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_controllers_own_certificate_is_renewed_in_time() {
    let controller = Controller::start().await;
    let ttl = Duration::from_secs(1000);
    let own = OwnIdentity::new(controller.shared.ca.clone(), ttl).unwrap();
    let (now, first) = (SystemTime::now(), own.not_after());
    assert!(!own.is_due(now));
    assert!(!own.is_due(now + Duration::from_secs(690)));
    assert!(own.is_due(now + Duration::from_secs(701)));
    own.renew(now + Duration::from_secs(701)).unwrap();
    assert!(own.not_after() >= first + 700);
    assert!(!own.is_due(now + Duration::from_secs(701)));
    // The clock goes back: a little is borne, more would leave a certificate of a time to come.
    assert!(!own.is_due(now + Duration::from_secs(645)));
    assert!(own.is_due(now + Duration::from_secs(600)));
}
