#![allow(clippy::unwrap_used)]
use super::*;
use crate::manifest::{Kind, Object};
use serde_json::json;

fn feed(kind: Kind) -> Feed {
    Feed::new(Watched::of(&kind).unwrap(), Arc::default())
}

fn service(name: &str, uid: &str, port: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "uid": uid},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": port}]},
    })
}

fn told(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::Apply(loaded) => format!("+{}", loaded.key.name),
        Event::Delete(key) => format!("-{}", key.name),
        Event::ApplyLegacy(loaded) => format!("+legacy {}", loaded.key.name),
        Event::DeleteLegacy(key) => format!("-legacy {}", key.name),
        Event::Problems { problems, .. } => format!("!{}", problems.len()),
        Event::Synced => "synced".into(),
        Event::Reached(number) => format!("reached {number}"),
    };
    events.iter().map(line).collect()
}

/// One list with these objects; what it told, and whether it is doubted.
fn list(feed: &mut Feed, objects: &[Value], now: Instant) -> (Vec<String>, bool) {
    let mut events = Vec::new();
    feed.begin();
    objects
        .iter()
        .for_each(|object| feed.apply(object.clone(), &mut events));
    let doubted = feed.end(now, &mut events).is_some();
    let mut told = told(&events);
    told.sort();
    (told, doubted)
}

#[test]
fn a_new_list_takes_away_what_it_does_not_name() {
    let (mut feed, now) = (feed(Kind::Service), Instant::now());
    let [a, b] = ["a", "b"].map(|name| service(name, "1", json!(80)));
    assert_eq!(
        list(&mut feed, &[a.clone(), b.clone()], now).0,
        ["+a", "+b"]
    );
    assert_eq!(
        list(&mut feed, &[b], now),
        (vec!["+b".into(), "-a".into()], false)
    );
}

#[test]
fn a_list_that_is_suddenly_empty_is_doubted_for_a_while() {
    let (mut feed, now) = (feed(Kind::Service), Instant::now());
    let a = service("a", "1", json!(80));
    list(&mut feed, std::slice::from_ref(&a), now);
    assert_eq!(list(&mut feed, &[], now), (vec![], true));
    assert_eq!(list(&mut feed, &[], now + GRACE / 2), (vec![], true));
    // It was a mistake, and is forgotten.
    list(&mut feed, std::slice::from_ref(&a), now + GRACE);
    assert_eq!(list(&mut feed, &[], now + GRACE), (vec![], true));
    assert_eq!(
        list(&mut feed, &[], now + GRACE * 2),
        (vec!["-a".into()], false)
    );
    // Nothing was known: an empty list is believed at once.
    assert_eq!(list(&mut feed, &[], now), (vec![], false));
}

#[test]
fn a_watch_event_is_believed_at_once() {
    let (mut feed, now) = (feed(Kind::Service), Instant::now());
    let a = service("a", "1", json!(80));
    list(&mut feed, std::slice::from_ref(&a), now);
    let mut events = Vec::new();
    feed.delete(&a, &mut events);
    feed.delete(&a, &mut events);
    assert_eq!(told(&events), ["-a"]);
    assert!(feed.known.is_empty());
}

/// D37: what was valid stays in force while the object is the same; one that was made anew inherits nothing.
#[test]
fn d37_an_object_that_cannot_be_read_names_the_field_and_keeps_its_last_state() {
    let mut feed = feed(Kind::Service);
    let mut events = Vec::new();
    feed.apply(service("a", "1", json!(80)), &mut events);
    feed.apply(service("a", "1", json!("x")), &mut events);
    assert_eq!(told(&events), ["+a", "!1"]);
    let Event::Problems { file, problems } = &events[1] else {
        panic!("{events:?}")
    };
    assert_eq!(&**file, "kubernetes:services/default/a");
    let problem = &problems[0];
    assert_eq!(problem.object.as_deref(), Some("Service default/a"));
    assert!(
        problem
            .field
            .as_deref()
            .unwrap()
            .starts_with("spec.ports[0]"),
        "{problem}"
    );
    let mut events = Vec::new();
    feed.apply(service("a", "2", json!("x")), &mut events);
    feed.apply(service("a", "2", json!(81)), &mut events);
    assert_eq!(told(&events), ["-a", "!1", "+a", "!0"]);
    let Event::Apply(loaded) = &events[2] else {
        panic!("{events:?}")
    };
    assert!(matches!(&loaded.object, Object::Service(service) if service.spec.ports[0].port == 81));
}

#[test]
fn a_troubled_object_that_goes_takes_its_problems_along() {
    let (mut feed, mut events) = (feed(Kind::Service), Vec::new());
    let bad = service("a", "1", json!("x"));
    feed.apply(bad.clone(), &mut events);
    feed.delete(&bad, &mut events);
    assert_eq!(told(&events), ["!1", "!0", "-a"]);
}

#[test]
fn what_has_the_old_name_of_its_group_has_no_status_and_says_what_it_is() {
    let ledger = Arc::<Ledger>::default();
    let mut feed = Feed::new(&super::super::kinds::LEGACY[0], ledger.clone());
    let group = json!({
        "apiVersion": "spec.smi-spec.io/v1alpha1", "kind": "HTTPRouteGroup",
        "metadata": {"name": "g", "namespace": "default", "uid": "1", "generation": 1},
        "matches": [{"name": "all", "pathRegex": "/a"}],
    });
    let now = Instant::now();
    let (told, _) = list(&mut feed, std::slice::from_ref(&group), now);
    assert_eq!(told, ["+legacy g"]);
    let mut events = Vec::new();
    feed.delete(&group, &mut events);
    assert_eq!(self::told(&events), ["-legacy g"]);
    assert!(ledger.keys().is_empty());
}
