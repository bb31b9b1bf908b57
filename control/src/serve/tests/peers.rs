//! What controllers tell each other, and whom they tell nothing.

use super::*;
use crate::index::Index;
use crate::kube::round::{Whose, Work};
use crate::kube::writer::{Writer, candidate};
use crate::live::fresh::Folders;
use crate::live::{Live, Requests};
use crate::peers::{Peers, Question};
use crate::serve::proxies::ProxyStatus;
use crate::traffic::counts::Counts;
use crate::traffic::read::Summary;
use crate::traffic::table::EdgeKey;
use crate::traffic::tap::Shown;
use crate::views::Mesh;
use futures_util::StreamExt;
use pb::peers_client::PeersClient;

const ALL: Question = Question {
    window: None,
    fresh: false,
    proxies_only: false,
    up_to_date: false,
};

fn connected(name: &str) -> ProxyStatus {
    ProxyStatus {
        pod: PodRef::new("default", name),
        zone: String::new(),
        version: "1".into(),
        connected: Instant::now(),
        stale_since: None,
        subscriptions: 1,
        last_nack: None,
    }
}

fn reported(requests: u64) -> Summary {
    let counts = Counts {
        requests,
        ..Counts::default()
    };
    Summary {
        edges: vec![(EdgeKey::default(), 1, counts)],
        ..Summary::default()
    }
}

#[tokio::test]
async fn only_controllers_are_answered() {
    let controller = Controller::start().await;
    let id = own_identity("cluster.local").unwrap();
    let (ttl, now) = (Duration::from_secs(60), SystemTime::now());
    // The controller's own account, but in the hands of a pod.
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let pod = PodRef::new(id.namespace(), "somebody");
    let ca = &controller.shared.ca;
    let leaf = ca.issue_leaf(csr.der(), &id, &pod, ttl, now).unwrap();
    let bound = (
        leaf.chain,
        PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    );
    for (who, certificate, code) in [
        ("nobody", None, Code::Unauthenticated),
        (
            "a workload",
            Some(controller.certificate("web", "web-1")),
            Code::PermissionDenied,
        ),
        ("a pod of its account", Some(bound), Code::PermissionDenied),
    ] {
        let mut client = PeersClient::new(controller.channel(certificate).await);
        let traffic = client.traffic(pb::PeerTraffic::default()).await;
        let tap = client.tap(pb::PeerTap::default()).await;
        let detail = client.detail(pb::PeerDetail::default()).await;
        let codes = [
            traffic.err().map(|status| status.code()),
            tap.err().map(|status| status.code()),
            detail.err().map(|status| status.code()),
        ];
        assert_eq!(codes, [Some(code); 3], "{who}");
    }
}

#[tokio::test]
async fn all_are_asked_but_itself_and_who_is_silent_is_named() {
    let here = Controller::start().await;
    let there = here.replica().await;
    let stranger = Controller::start().await; // another mesh
    let _entry = there.shared.proxies.enter(connected("web-1"));
    let pod = PodRef::new("default", "web-1");
    there
        .shared
        .traffic
        .record(&pod, reported(7), Instant::now());
    let names = [&here, &there, &stranger].map(|at| at.address.to_string());
    let peers = Peers::new(names.to_vec(), here.shared.clone(), here.own.clone());
    let gathered = peers.ask(ALL).await;
    let [(at, heard)] = &gathered.heard[..] else {
        panic!("{} answers", gathered.heard.len());
    };
    assert_eq!(*at, there.address);
    assert_eq!(heard.proxies[0].pod, pod);
    assert_eq!(heard.traffic[0].edges[0].1.requests, 7);
    let controllers = gathered.controllers.unwrap();
    assert_eq!((controllers.known, controllers.answered), (3, 2));
    let silent: Vec<_> = controllers.silent.iter().collect();
    assert_eq!(silent[0].controller, stranger.address.to_string());
    assert!(silent[0].why.contains("no TLS"), "{silent:?}");
    let alone = Peers::new(vec![], here.shared.clone(), here.own.clone());
    assert_eq!(alone.ask(ALL).await.controllers, None);
}

#[tokio::test]
async fn a_tap_reaches_proxies_of_another_controller_and_ends_with_its_reader() {
    let here = Controller::start().await;
    let there = here.replica().await;
    let peers = Peers::new(vec![], here.shared.clone(), here.own.clone());
    let pod = PodRef::new("default", "web-1");
    let pods = BTreeSet::from([pod.clone()]);
    let tap = peers.tap(there.address, pb::TapStart::default(), &pods);
    let mut shown = tap.await.unwrap();
    let mut known = BTreeSet::new();
    let Some(pb::observe_command::Command::Tap(start)) =
        there.shared.taps.next_command(&pod, &mut known)
    else {
        panic!("nothing was asked of the proxy");
    };
    let state = Shown::State(pb::TapState {
        id: start.id,
        seen: 9,
        ..Default::default()
    });
    there.shared.taps.show(&pod, start.id, state.clone());
    assert_eq!(shown.next().await, Some((pod.clone(), state, 0)));
    drop(shown);
    let known = Mutex::new(known);
    eventually("it ends", || {
        let told = there.shared.taps.next_command(&pod, &mut known.lock());
        matches!(told, Some(pb::observe_command::Command::Stop(_)))
    })
    .await;
}

#[test]
fn controllers_of_one_folder_learn_whom_the_others_enrolled() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let open = || Enrolled::open(state.clone()).unwrap();
    let (here, there) = (open(), open());
    let [a, b] = ["a", "b"].map(|name| PodRef::new("default", name));
    there.add(b.clone(), |_| true).unwrap();
    here.add(a.clone(), |_| true).unwrap();
    // What is found when the own is written is learnt as well.
    assert_eq!(here.learn().unwrap(), std::slice::from_ref(&b));
    assert_eq!(there.learn().unwrap(), std::slice::from_ref(&a));
    assert_eq!(there.learn().unwrap(), []);
    assert_eq!(open().all(), BTreeSet::from([a, b]));
    let token = state.observe_token(false).unwrap();
    assert_eq!(state.observe_token(true).unwrap(), token);
    assert_ne!(state.observe_token(false).unwrap(), token);
}

#[tokio::test]
async fn the_proxies_of_all_controllers_count_and_one_that_cannot_read_is_found_out() {
    let here = Controller::start().await;
    let there = here.replica().await;
    let _own = here.shared.proxies.enter(connected("web-1"));
    let stale = ProxyStatus {
        stale_since: Some(Instant::now()),
        ..connected("web-2")
    };
    let _theirs = there.shared.proxies.enter(stale);
    let names = [&here, &there].map(|at| at.address.to_string());
    let peers = Peers::new(names.to_vec(), here.shared.clone(), here.own.clone());
    let everybody = peers.everybody(true).await;
    let synced: Vec<bool> = everybody.proxies.iter().map(ProxyStatus::synced).collect();
    assert_eq!(synced, [true, false]);
    let controllers = everybody.controllers.unwrap();
    assert_eq!((controllers.known, controllers.answered), (2, 2));
    assert!(everybody.up_to_date);
    assert!(there.shared.fresh.set(unreadable()).is_ok());
    assert!(!peers.everybody(true).await.up_to_date);
    assert!(peers.everybody(false).await.up_to_date, "nobody asked");
}

/// A source that nobody reads any more.
fn unreadable() -> Fresh {
    let (asks, _) = mpsc::channel(1);
    let index = Index::new(Mesh::default(), []);
    Fresh::Folders(Folders::new(asks, &index))
}

#[tokio::test]
async fn status_counts_the_proxies_of_all_controllers_that_have_read_everything() {
    let here = Controller::start().await;
    let there = here.replica().await;
    let names = vec![there.address.to_string()];
    let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody is asked"))
    });
    let writer = Writer {
        client: kube::Client::new(nobody, "default"),
        candidate: candidate("weft-system"),
        index: Arc::new(Index::new(Mesh::default(), [])),
        ledger: Arc::default(),
        peers: Peers::new(names, here.shared.clone(), here.own.clone()),
    };
    let own = here.shared.proxies.enter(connected("web-1"));
    let theirs = there.shared.proxies.enter(connected("web-2"));
    let mut work = Work::default();
    let key = crate::manifest::ObjectKey::new(crate::manifest::Kind::TrafficSplit, "a", "b");
    work.touch([key.clone()]);
    let counted = async || {
        let proxies = writer.proxies(&work, std::slice::from_ref(&key)).await;
        let lacking = proxies.lacking.iter().flatten().count();
        (proxies.lacking.len(), lacking, proxies.heard, proxies.of)
    };
    assert_eq!(counted().await, (2, 0, true, Whose::Everybody));
    theirs.update(|status| status.stale_since = Some(Instant::now()));
    assert_eq!(counted().await, (2, 1, true, Whose::Everybody));
    own.update(|status| status.stale_since = Some(Instant::now()));
    assert_eq!(counted().await, (1, 1, true, Whose::Own), "enough");
    own.update(|status| status.stale_since = None);
    theirs.update(|status| status.stale_since = None);
    assert!(there.shared.fresh.set(unreadable()).is_ok());
    assert_eq!(counted().await, (2, 0, false, Whose::Everybody));
    drop(there);
    assert!(!counted().await.2, "it is gone");
}

#[tokio::test]
async fn a_name_leads_to_a_controller_at_each_of_its_addresses() {
    let here = Controller::start().await;
    let there = here.replica().await;
    let name = format!("localhost:{}", there.address.port());
    let peers = Peers::new(vec![name], here.shared.clone(), here.own.clone());
    let heard = peers.ask(ALL).await.heard;
    let found: Vec<_> = heard.iter().map(|(at, _)| *at).collect();
    assert_eq!(found, [there.address]);
}

#[tokio::test]
async fn an_answer_of_what_may_be_outdated_says_so() {
    let here = Controller::start().await;
    let peers = Peers::new(vec![], here.shared.clone(), here.own.clone());
    let index = Index::new(Mesh::default(), []);
    let live = Live::new(Arc::new(index), peers);
    let asked = async || {
        let simulated = live.simulate(Requests::default()).await.unwrap();
        let analyzed = live.get("analyze", "").await.unwrap().unwrap();
        let sync = live.get("sync", "").await.unwrap().unwrap();
        (
            simulated["outdated"].is_string(),
            analyzed[0]["code"] == "W171",
            sync["upToDate"] == false,
        )
    };
    assert_eq!(asked().await, (false, false, false));
    assert!(here.shared.fresh.set(unreadable()).is_ok());
    assert_eq!(asked().await, (true, true, true));
}

#[test]
fn who_could_not_be_remembered_is_remembered_later() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path().join("state")).unwrap();
    let enrolled = Enrolled::open(state.clone()).unwrap();
    let pod = PodRef::new("default", "web-1");
    std::fs::remove_dir_all(state.path()).unwrap();
    assert!(enrolled.add(pod.clone(), |_| true).is_err());
    enrolled.write_rest();
    std::fs::create_dir(state.path()).unwrap();
    enrolled.write_rest();
    assert!(Enrolled::open(state).unwrap().all().contains(&pod));
}

#[test]
fn pods_that_come_together_are_all_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let enrolled = Enrolled::open(state.clone()).unwrap();
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let (enrolled, state) = (&enrolled, &state);
            threads.spawn(move || {
                for n in 0..8 {
                    let pod = PodRef::new("default", format!("pod-{thread}-{n}"));
                    enrolled.add(pod.clone(), |_| true).unwrap();
                    let open = Enrolled::open(state.clone()).unwrap();
                    assert!(open.all().contains(&pod), "it is written by then");
                }
            });
        }
    });
    assert_eq!(Enrolled::open(state.clone()).unwrap().all().len(), 64);
}
