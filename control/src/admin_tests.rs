//! What an operator sees.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::ca::Ca;
use crate::live::Live;
use crate::manifest::Origin;
use crate::peers::Peers;
use crate::serve::identity::Enrolled;
use crate::serve::{PodInfo, View, Views};
use crate::state::StateDir;
use crate::token::TokenKey;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use weft_proxy_api::wire::{Body, Resource};

/// An index with one problem and nothing else.
struct Nothing;

impl Overview for Nothing {
    fn facts(&self) -> Facts {
        let problem = Problem {
            origin: Origin {
                file: "mesh/split.yaml".into(),
                line: 7,
            },
            object: Some("TrafficSplit default/web".into()),
            field: Some("spec.backends".into()),
            message: "no such Service".into(),
            severity: Severity::Warning,
        };
        Facts {
            objects: 12,
            problems: vec![problem],
            numbers: Numbers {
                views: 3,
                computed: 44,
                endpoints: 5,
            },
        }
    }
}

impl Views for Nothing {
    fn subscribe(&self, _proxy: &PodRef, _resource: &Resource) -> watch::Receiver<Arc<View>> {
        // Nothing is ever published here; the sender is gone.
        let view = View {
            version: 1,
            body: Body::Endpoints(Vec::new()),
        };
        watch::channel(Arc::new(view)).1
    }

    fn pod(&self, _pod: &PodRef) -> Option<PodInfo> {
        None
    }

    fn enroll(&self, _pod: &PodRef) {}
}

struct Story {
    admin: Admin,
    ready: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

fn story() -> Story {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let ca = Arc::new(Ca::open_or_create(&state, "cluster.local").unwrap());
    let (tokens, ttl) = (
        TokenKey::open_or_create(&state).unwrap(),
        Duration::from_secs(60),
    );
    let shared = Shared::new(
        Arc::new(Nothing),
        ca.clone(),
        tokens,
        Enrolled::open(state).unwrap(),
        ttl,
    );
    let ready = watch::Sender::new(false);
    let own = OwnIdentity::new(ca, ttl).unwrap();
    let peers = Peers::new(vec![], shared.clone(), own.clone());
    let api = Api {
        shared: shared.clone(),
        peers: peers.clone(),
        overview: Arc::new(Nothing),
        keys: String::from("secret").into(),
        live: Arc::new(Live::new(Arc::new(Nothing), peers)),
    };
    let admin = Admin {
        overview: Arc::new(Nothing),
        shared,
        own,
        ready: ready.subscribe(),
        ledger: Arc::default(),
        api,
    };
    Story {
        admin,
        ready,
        _dir: dir,
    }
}

async fn ask(admin: &Admin, method: Method, path: &str) -> (u16, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(())
        .unwrap();
    let response = admin.answer(&request);
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn proxy(name: &str, stale_since: Option<Instant>, now: Instant) -> ProxyStatus {
    ProxyStatus {
        pod: PodRef::new("default", name),
        zone: "a".into(),
        version: "1".into(),
        connected: now - Duration::from_secs(60),
        stale_since,
        subscriptions: 4,
        last_nack: None,
    }
}

#[tokio::test]
async fn readiness_follows_the_folders_and_liveness_does_not() {
    let story = story();
    assert_eq!(ask(&story.admin, Method::GET, "/live").await.0, 200);
    assert_eq!(ask(&story.admin, Method::GET, "/ready").await.0, 503);
    story.admin.ledger.converter_missed();
    let (code, why) = ask(&story.admin, Method::GET, "/ready").await;
    assert!(code == 200 && why.contains("webhook"), "{code} {why}");
    story.ready.send_replace(true);
    assert_eq!(ask(&story.admin, Method::GET, "/ready").await.0, 200);
}

#[tokio::test]
async fn nothing_can_be_changed_here() {
    let story = story();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::CONNECT] {
        assert_eq!(ask(&story.admin, method, "/live").await.0, 405);
    }
    let (status, text) = ask(&story.admin, Method::GET, "/shutdown").await;
    assert_eq!(status, 404);
    assert!(text.contains("/metrics"), "{text}");
}

#[tokio::test]
async fn the_dashboard_is_here_and_not_for_names_of_strangers() {
    let story = story();
    let of = |path: &str, host: &str| {
        let request = Request::get(path).header(header::HOST, host);
        story.admin.answer(&request.body(()).unwrap())
    };
    let page = of("/", "127.0.0.1:8085");
    assert_eq!(page.status(), 200);
    assert_eq!(page.headers()[header::CACHE_CONTROL], "no-store");
    for path in ["/", "/page.js", "/status", "/problems"] {
        assert_eq!(of(path, "evil.example").status(), 421, "{path}");
        assert_eq!(of(path, "weft-control:8085").status(), 200, "{path}");
    }
    assert_eq!(of("/metrics", "metrics.example").status(), 200);
}

#[tokio::test]
async fn problems_are_told_by_file_and_line() {
    let story = story();
    let (_, text) = ask(&story.admin, Method::GET, "/problems").await;
    assert!(text.starts_with("mesh/split.yaml:7: "), "{text}");
    let (_, text) = ask(&story.admin, Method::GET, "/status").await;
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (
            &status["problems"][0]["line"],
            &status["objects"],
            &status["ready"]
        ),
        (&json!(7), &json!(12), &json!(false))
    );
}

#[tokio::test]
async fn measures_are_told_in_the_text_format() {
    let story = story();
    let now = Instant::now();
    let entered = [
        proxy("a", None, now),
        proxy("b", Some(now), now),
        proxy("c", Some(now), now),
    ]
    .map(|status| story.admin.shared.proxies.enter(status));
    story.admin.shared.counters.certificate_refused("csr_name");
    story.admin.shared.counters.items[2].add(5);
    let (_, page) = ask(&story.admin, Method::GET, "/metrics").await;
    for line in [
        "weft_control_proxies{state=\"synced\"} 1",
        "weft_control_proxies{state=\"stale\"} 2",
        "weft_control_subscriptions 12",
        "weft_control_items_sent_total{kind=\"delta\"} 5",
        "weft_control_certificates_refused_total{reason=\"csr_name\"} 1",
        "weft_control_objects 12",
        "weft_control_problems{severity=\"warning\"} 1",
        "weft_control_problems{severity=\"error\"} 0",
        "weft_control_views 3",
        "weft_control_views_computed_total 44",
        "weft_control_endpoints 5",
    ] {
        assert!(page.lines().any(|one| one == line), "{line} in\n{page}");
    }
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(
            name.starts_with("weft_control_") && value.parse::<u64>().is_ok(),
            "{line}"
        );
    }
    let told = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE weft_control_"));
    let told: Vec<String> = told.map(str::to_owned).collect();
    let listed = METRICS
        .iter()
        .map(|(name, kind, _)| format!("{name} {kind}"));
    assert_eq!(
        told,
        listed.collect::<Vec<_>>(),
        "the table is the page, in its order"
    );
    drop(entered);
}

#[test]
fn a_proxy_is_synced_or_stale_since() {
    let now = Instant::now();
    let stale = now - Duration::from_millis(2500);
    let status = status(
        true,
        &[proxy("a", None, now), proxy("b", Some(stale), now)],
        &Facts::default(),
        now,
    );
    let told = |at: usize, what: &str| status["proxies"][at][what].clone();
    assert_eq!(
        (told(0, "state"), told(0, "staleSeconds")),
        (json!("SYNCED"), Value::Null)
    );
    assert_eq!(
        (told(1, "state"), told(1, "staleSeconds")),
        (json!("STALE"), json!(2.5))
    );
    assert_eq!(
        (told(1, "pod"), told(1, "connectedSeconds")),
        (json!("b"), json!(60.0))
    );
}

#[tokio::test]
async fn traffic_is_told_to_whoever_shows_the_token() {
    let Story { admin, .. } = &story();
    for (shown, expected) in [
        (None, 401),
        (Some("Bearer wrong"), 401),
        (Some("secret"), 401),
        (Some("Bearer secret"), 200),
    ] {
        let mut request = Request::get("/api/v1/traffic?fresh&window=start");
        if let Some(shown) = shown {
            request = request.header("authorization", shown);
        }
        let response = admin
            .respond(request.body(Full::<Bytes>::default()).unwrap())
            .await;
        assert_eq!(response.status(), expected, "{shown:?}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            body.starts_with(b"{\"apiVersion\":\"weft.mesh/v1\""),
            expected == 200
        );
    }
}

/// An answer of the API, with the token.
async fn asked(admin: &Admin, method: Method, path: &str, body: &str) -> (u16, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", "Bearer secret");
    let request = request.body(Full::<Bytes>::from(body.to_owned())).unwrap();
    let response = admin.respond(request).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_state_in_force_can_be_asked() {
    let Story { admin, .. } = &story();
    let request = r#"{"requests": [{"from": "a/b", "to": "web:80"}, {"x": 1}]}"#;
    let (status, body) = asked(admin, Method::POST, "/api/v1/simulate", request).await;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &told["answers"][0]["verdict"]),
        (200, &json!("refuse"))
    );
    assert!(told["answers"][1]["error"].is_string(), "{told:#}");
    for (method, path, body, expected) in [
        (Method::POST, "/api/v1/simulate", "{", 400),
        (
            Method::POST,
            "/api/v1/simulate",
            r#"{"access": "lax"}"#,
            400,
        ),
        (Method::POST, "/api/v1/analyze", "", 405),
        (Method::GET, "/api/v1/analyze?access=strict", "", 200),
        (Method::GET, "/api/v1/describe", "", 400),
        (
            Method::GET,
            "/api/v1/describe?object=split/default/web",
            "",
            404,
        ),
        (
            Method::GET,
            "/api/v1/sync?object=split/default/web",
            "",
            200,
        ),
        (Method::GET, "/api/v1/sync?object=web", "", 400),
    ] {
        let (status, said) = asked(admin, method, path, body).await;
        assert_eq!(status, expected, "{path} {body}: {said}");
    }
    // Without the token: a list that never comes is not waited for.
    let never = futures_util::stream::pending::<Result<hyper::body::Frame<Bytes>, Infallible>>();
    let request = Request::post("/api/v1/simulate").body(http_body_util::StreamBody::new(never));
    let response = admin.respond(request.unwrap()).now_or_never();
    assert_eq!(response.map(|it| it.status().as_u16()), Some(401));
}
