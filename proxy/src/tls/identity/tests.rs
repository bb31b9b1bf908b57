//! The life of our certificate on a made-up clock.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::tls::tests::{DOMAIN, TestCa, id};
use parking_lot::Mutex;
use std::sync::OnceLock;
use tokio::time::Instant;

/// `{"sub":"system:serviceaccount:default:web"}` between two parts that do not matter here.
const TOKEN: &str = "e30.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6ZGVmYXVsdDp3ZWIifQ.c2ln";

/// A controller that signs for `name` with a life of `seconds`, or fails.
#[derive(Clone)]
struct Controller(Arc<Mutex<Script>>);

struct Script {
    ca: TestCa,
    name: SpiffeId,
    /// `None`: unreachable.
    seconds: Option<i64>,
    /// When it was asked, since the start, and the request.
    asked: Vec<(u64, Vec<u8>)>,
    started: Instant,
}

impl Certify for Controller {
    async fn certify(&self, csr: Vec<u8>, token: String) -> Result<Certified, BoxError> {
        assert_eq!(token, TOKEN);
        let mut script = self.0.lock();
        let now = script.started.elapsed().as_secs();
        script.asked.push((now, csr.clone()));
        let life = script.seconds.ok_or("unreachable")?;
        let shift = i64::try_from(now).unwrap();
        let leaf = script
            .ca
            .certify(&csr, script.name.as_str(), shift - 3600, shift + life);
        Ok(Certified {
            chain: vec![leaf],
            not_after: 0,
            roots: vec![script.ca.root.clone()],
        })
    }
}

/// The wall clock, moved by tokio's paused one.
fn clock() -> SystemTime {
    thread_local!(static ZERO: OnceLock<(SystemTime, Instant)> = const { OnceLock::new() });
    ZERO.with(|zero| {
        let (wall, paused) = zero.get_or_init(|| (SystemTime::now(), Instant::now()));
        *wall + paused.elapsed()
    })
}

struct Stage {
    controller: Controller,
    tls: Tls,
    state: watch::Receiver<State>,
    metrics: Arc<Metrics>,
    _token: tempfile::Folder,
}

/// A folder for one test.
mod tempfile {
    pub(super) struct Folder(pub(super) std::path::PathBuf);
    impl Folder {
        pub(super) fn new() -> Self {
            let unique = format!(
                "weft-identity-{}-{:x}",
                std::process::id(),
                fastrand::u64(..)
            );
            let path = std::env::temp_dir().join(unique);
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Starts a renewal against a controller that signs for `name`.
fn stage(name: &str, seconds: Option<i64>) -> Stage {
    clock();
    let token = tempfile::Folder::new();
    let token_file = token.0.join("token");
    std::fs::write(&token_file, TOKEN).unwrap();
    let ca = TestCa::new();
    let tls = Tls::new(DOMAIN, vec![ca.root.clone()]);
    let script = Script {
        ca,
        name: id(name),
        seconds,
        asked: vec![],
        started: Instant::now(),
    };
    let controller = Controller(Arc::new(Mutex::new(script)));
    let (state, seen) = watch::channel(State::Asking(None));
    let metrics = Metrics::new("default");
    let renewal = Renewal {
        tls: tls.clone(),
        certify: controller.clone(),
        token_file,
        clock,
        state,
        metrics: metrics.clone(),
    };
    tokio::spawn(renewal.run());
    Stage {
        controller,
        tls,
        state: seen,
        metrics,
        _token: token,
    }
}

impl Stage {
    async fn until(&mut self, wanted: impl FnMut(&State) -> bool) -> State {
        self.state.wait_for(wanted).await.unwrap().clone()
    }

    fn asked(&self) -> Vec<u64> {
        self.controller
            .0
            .lock()
            .asked
            .iter()
            .map(|(at, _)| *at)
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_certified_at_about_70_percent_of_each_life() {
    let mut stage = stage("web", Some(1000));
    stage
        .until(|state| matches!(state, State::Valid { .. }))
        .await;
    assert_eq!(stage.tls.identity(), Some(id("web")));
    for _ in 0..3 {
        stage.state.changed().await.unwrap();
    }
    let asked = stage.asked();
    for pair in asked.windows(2) {
        assert!((640..=770).contains(&(pair[1] - pair[0])), "{asked:?}");
    }
    let keys: std::collections::HashSet<_> = stage
        .controller
        .0
        .lock()
        .asked
        .iter()
        .map(|(_, csr)| csr.clone())
        .collect();
    assert_eq!(
        keys.len(),
        asked.len(),
        "every request has a key of its own"
    );
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_from_one_second_to_ten_as_nobody_is_served() {
    let mut stage = stage("web", None);
    stage
        .until(|state| matches!(state, State::Asking(Some(_))))
        .await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let gaps: Vec<u64> = stage
        .asked()
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert!(
        gaps[0] <= 2 && gaps.iter().all(|gap| *gap <= 11) && gaps[8] >= 4,
        "{gaps:?}"
    );
    assert!(stage.tls.identity().is_none());
    let failed = stage.asked().len() as u64;
    stage.controller.0.lock().seconds = Some(1000);
    stage
        .until(|state| matches!(state, State::Valid { .. }))
        .await;
    let counted = |result| stage.metrics.identity_renewals(result).get();
    assert_eq!((counted("ok"), counted("failed")), (1, failed));
}

#[tokio::test(start_paused = true)]
async fn a_valid_certificate_is_kept_while_renewal_fails_and_dropped_when_it_ends() {
    let mut stage = stage("web", Some(1000));
    stage
        .until(|state| matches!(state, State::Valid { .. }))
        .await;
    stage.controller.0.lock().seconds = None;
    tokio::time::sleep(Duration::from_secs(940)).await;
    assert!(stage.asked().len() > 2, "renewal was tried");
    assert_eq!(
        stage.tls.identity(),
        Some(id("web")),
        "still valid, still used"
    );
    let state = stage
        .until(|state| matches!(state, State::Expired(_)))
        .await;
    assert!(matches!(state, State::Expired(Some(why)) if why.contains("unreachable")));
    assert!(stage.tls.identity().is_none() && stage.tls.server().is_none());
    stage.controller.0.lock().seconds = Some(1000);
    stage
        .until(|state| matches!(state, State::Valid { .. }))
        .await;
    assert!(stage.tls.server().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_somebody_else_or_without_life_is_refused() {
    for (name, seconds, why) in [
        ("db", 1000, "we are"),
        ("web", -200, "expired"),
        ("web", -30, "clocks"),
    ] {
        let mut stage = stage(name, Some(seconds));
        stage
            .until(|state| matches!(state, State::Asking(Some(reason)) if reason.contains(why)))
            .await;
        assert!(stage.tls.identity().is_none());
    }
}

#[test]
fn the_token_says_who_we_are() {
    assert_eq!(subject(TOKEN, DOMAIN).unwrap(), id("web"));
    for wrong in [
        "",
        "a.b",
        "a.!!!.c",
        "e30.e30.c2ln",
        "e30.eyJzdWIiOiJib2IifQ.c",
    ] {
        assert!(subject(wrong, DOMAIN).is_err(), "{wrong}");
    }
}

#[test]
fn base64url_is_decoded() {
    let table = [
        ("", &b""[..]),
        ("Zg", b"f"),
        ("Zm8=", b"fo"),
        ("Zm9v", b"foo"),
        ("-_-_", &[0xfb, 0xff, 0xbf]),
    ];
    for (text, bytes) in table {
        assert_eq!(base64url(text).as_deref(), Some(bytes), "{text}");
    }
    assert_eq!(base64url("a+b/"), None);
}

#[test]
fn the_longest_wait_leaves_room_for_ten_tries() {
    for (life, expected) in [(Some(15), 2), (Some(5), 1), (Some(86_400), 60), (None, 10)] {
        let life = life.map(Duration::from_secs);
        assert_eq!(longest(life).as_secs_f64().round() as u64, expected);
    }
}

#[test]
fn waiting_times_stay_in_their_bounds() {
    for random in [0.0, 0.5, 1.0] {
        let waits: Vec<u64> = (0..12)
            .map(|n| backoff(n, BACKOFF.1, random).as_millis() as u64)
            .collect();
        assert!(
            waits.iter().all(|ms| (1000..=60_000).contains(ms)),
            "{waits:?}"
        );
        let now = SystemTime::now();
        let at = renew_at(now, now + Duration::from_secs(1000), random)
            .duration_since(now)
            .unwrap()
            .as_secs();
        assert!((650..=750).contains(&at), "{at}");
    }
}
