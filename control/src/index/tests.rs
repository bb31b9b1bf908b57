//! What is published when, and that the order of arrival does not matter.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::manifest::{Kind, ObjectKey, Origin, Severity};
use crate::views::fixtures::*;
use weft_proxy_api::policy::outbound::Outbound;

fn index(manifests: &[&str]) -> Index {
    let index = Index::new(strict(), []);
    index.apply(
        manifests
            .iter()
            .flat_map(|manifest| events(manifest))
            .collect(),
    );
    index
}

fn web() -> PodRef {
    PodRef::new("default", "web-1")
}

fn outbound(address: &str) -> Resource {
    Resource::Outbound(address.parse().unwrap())
}

fn set(name: &str) -> Resource {
    Resource::Endpoints(name.into())
}

fn delete(kind: Kind, name: &str) -> Event {
    Event::Delete(ObjectKey::new(kind, "default", name))
}

fn addresses(view: &View) -> Vec<String> {
    match &view.body {
        Body::Endpoints(endpoints) => endpoints.iter().map(|e| e.address.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_is_published_where_it_shows() {
    let index = index(&[
        &service("web", "web", "10.96.0.1"),
        &service("db", "db", "10.96.0.2"),
    ]);
    let mut web = index.subscribe(&web(), &set("default/web:80"));
    let db = index.subscribe(&PodRef::new("default", "x"), &set("default/db:80"));
    let first = web.borrow_and_update().version;
    index.apply(events(&pod("web-1", "web", "10.0.0.1")));
    assert!(web.has_changed().unwrap() && !db.has_changed().unwrap());
    let view = web.borrow_and_update().clone();
    assert_eq!(addresses(&view), ["10.0.0.1:8080"]);
    assert!(view.version != first && view.version == encode::version(&view.body));
    index.apply(vec![delete(Kind::Pod, "web-1")]);
    assert_eq!(
        web.borrow_and_update().version,
        first,
        "the same content is the same version"
    );
}

#[test]
fn what_changes_nothing_is_not_published() {
    let index = index(&[
        &service("web", "web", "10.96.0.1"),
        &pod("web-1", "web", "10.0.0.1"),
    ]);
    let endpoints = index.subscribe(&web(), &set("default/web:80"));
    index.apply(events(&pod("web-1", "web", "10.0.0.1")));
    index.apply(events(
        &pod("web-1", "web", "10.0.0.1").replace("app: web}", "app: web, colour: blue}"),
    ));
    index.apply(events(&pod("other", "other", "10.0.0.2")));
    index.apply(vec![
        delete(Kind::Service, "no-such"),
        delete(Kind::Other("x/Y".into()), "z"),
    ]);
    assert!(!endpoints.has_changed().unwrap());
}

/// Every kind of question a view asks: the answer comes later, and the view follows.
#[test]
fn d29_what_appears_later_takes_effect() {
    let index = index(&[]);
    let mut policy = index.subscribe(&web(), &Resource::Inbound);
    let mut to_web = index.subscribe(&web(), &outbound("10.96.0.1:80"));
    let mut to_pod = index.subscribe(&web(), &outbound("10.0.0.1:8080"));
    assert!(matches!(
        &to_web.borrow_and_update().body,
        Body::Outbound(Outbound::PassThrough)
    ));
    let steps: [(String, [bool; 3]); 8] = [
        (split("s", "{service: web, backends: [{service: v1, weight: 1}], matches: [{kind: HTTPRouteGroup, name: api}]}"), [false, false, false]),
        (service("web", "web", "10.96.0.1"), [false, true, false]),
        (pod("web-1", "web", "10.0.0.1"), [false, false, true]),
        (group("api", "[{name: m, pathRegex: /m}]"), [false, true, false]),
        (service("v1", "v1", "10.96.0.2"), [false, true, false]),
        (target("t", &["default/x"], "[{kind: TCPRoute, name: a}]"), [true, false, false]),
        (tcp("a", "[80]"), [true, false, false]),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: default, annotations: {config.weft.mesh/opaque-ports: '8080,80', config.weft.mesh/access: audit}}\n".into(), [true, true, true]),
    ];
    for (manifest, expected) in steps {
        index.apply(events(&manifest));
        let changed = [&mut policy, &mut to_web, &mut to_pod].map(|receiver| {
            let changed = receiver.has_changed().unwrap();
            receiver.mark_unchanged();
            changed
        });
        assert_eq!(changed, expected, "{manifest}");
    }
}

#[test]
fn d25_the_next_split_takes_over_when_the_first_is_deleted_or_moves() {
    let to = |name: &str, root: &str| {
        split(
            name,
            &format!("{{service: {root}, backends: [{{service: v1, weight: 1}}]}}"),
        )
    };
    let index = index(&[
        &service("web", "web", "10.96.0.1"),
        &service("v1", "v1", "10.96.0.2"),
        &to("a", "web"),
        &to("b", "web"),
    ]);
    let mut view = index.subscribe(&web(), &outbound("10.96.0.1:80"));
    let mut object = || match &view.borrow_and_update().body {
        Body::Outbound(Outbound::Service(service)) => {
            service.routes[0].object.clone().unwrap_or_default()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(object(), "TrafficSplit default/a");
    index.apply(events(&to("a", "other")));
    assert_eq!(object(), "TrafficSplit default/b");
    index.apply(events(&to("a", "web")));
    assert_eq!(object(), "TrafficSplit default/a");
    index.apply(vec![delete(Kind::TrafficSplit, "a")]);
    assert_eq!(object(), "TrafficSplit default/b");
    index.apply(vec![delete(Kind::TrafficSplit, "b")]);
    assert_eq!(object(), "");
}

#[test]
fn enrolling_gives_endpoints_an_identity() {
    let bare = pod("web-1", "web", "10.0.0.1").replace(
        "  annotations: {weft.mesh/injected-at-version: \"1\"}\n",
        "",
    );
    let index = index(&[&service("web", "web", "10.96.0.1"), &bare]);
    let mut set = index.subscribe(&web(), &set("default/web:80"));
    let mut by_ip = index.subscribe(&web(), &outbound("10.0.0.1:1"));
    let mut is_meshed = || match (
        &set.borrow_and_update().body,
        &by_ip.borrow_and_update().body,
    ) {
        (Body::Endpoints(list), Body::Outbound(Outbound::Endpoint(one))) => {
            (list[0].identity.is_some(), one.identity.is_some())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(is_meshed(), (false, false));
    assert!(!index.pod(&web()).unwrap().meshed);
    index.enroll(&web());
    assert_eq!(is_meshed(), (true, true));
    assert!(index.pod(&web()).unwrap().meshed);
    assert_eq!(index.enrolled().into_iter().collect::<Vec<_>>(), [web()]);
}

#[test]
fn a_later_pod_of_the_same_name_has_no_proxy_until_it_says_so() {
    let bare = pod("web-1", "web", "10.0.0.1").replace(
        "  annotations: {weft.mesh/injected-at-version: \"1\"}\n",
        "",
    );
    let of = |uid: &str, app: &str| {
        let text = bare.replace("  name: web-1\n", &format!("  name: web-1\n  uid: {uid}\n"));
        let mut events = events(&text.replace("app: web", &format!("app: {app}")));
        for event in &mut events {
            if let Event::Apply(loaded) = event {
                loaded.origin.file = "kubernetes:pods/default/web-1".into();
            }
        }
        events
    };
    let index = index(&[]);
    let is_meshed = || index.pod(&web()).unwrap().meshed;
    index.apply(of("a", "web"));
    index.enroll(&web());
    index.apply(of("a", "other"));
    assert!(is_meshed(), "the same pod");
    index.apply(of("b", "web"));
    assert!(!is_meshed(), "another one, and nothing was seen between");
    index.enroll(&web());
    index.apply(vec![delete(Kind::Pod, "web-1")]);
    index.apply(of("b", "web"));
    assert!(!is_meshed(), "one that was gone");
    // Manifests of a folder do not tell pods apart: the proxy of one that comes again still runs.
    index.apply(events(&bare));
    index.enroll(&web());
    index.apply(vec![delete(Kind::Pod, "web-1")]);
    index.apply(events(&bare));
    assert!(is_meshed());
}

/// The same objects in several orders, with an older state of some on the way, give the same views.
#[test]
fn the_order_of_arrival_does_not_matter() {
    let manifests = [
        service("web", "web", "10.96.0.1"),
        service("v1", "v1", "10.96.0.2"),
        service_with(
            "second",
            "web",
            "10.96.0.3",
            "[{name: http, port: 80, targetPort: main}]",
        ),
        pod("web-1", "web", "10.0.0.1"),
        pod("web-2", "web", "10.0.0.2"),
        pod("v1-1", "v1", "10.0.0.3"),
        pod("twin", "v1", "10.0.0.3"),
        split(
            "a",
            "{service: web, backends: [{service: v1, weight: 1}], matches: [{kind: HTTPRouteGroup, name: api}]}",
        ),
        split("b", "{service: web, backends: [{service: v1, weight: 2}]}"),
        split("c", "{service: web, backends: [{service: web, weight: 3}]}"),
        group("api", "[{name: m, pathRegex: /m}, {name: other}]"),
        tcp("tcp", "[80]"),
        target(
            "one",
            &["default/x"],
            "[{kind: HTTPRouteGroup, name: api}, {kind: TCPRoute, name: tcp}]",
        ),
        target("two", &["other/x"], "[{kind: TCPRoute, name: tcp}]"),
    ];
    let resources = [
        Resource::Inbound,
        outbound("10.96.0.1:80"),
        outbound("10.96.0.1:81"),
        outbound("10.0.0.3:8080"),
        set("default/web:80"),
        set("default/v1:80"),
    ];
    let look = |index: &Index| -> Vec<Body> {
        resources
            .iter()
            .map(|resource| index.subscribe(&web(), resource).borrow().body.clone())
            .collect()
    };
    let all: Vec<&str> = manifests.iter().map(String::as_str).collect();
    let expected = look(&index(&all));
    let found = index(&all).problems();
    for turn in 0..60 {
        let mut order: Vec<usize> = (0..all.len()).collect();
        // a different permutation each turn, the same ones every time
        order.sort_by_key(|i| (i * 7 + turn * 13 + i * turn * 5) % 31);
        if turn % 2 == 0 {
            order.reverse();
        }
        let index = Index::new(strict(), []);
        let early: Vec<_> = resources
            .iter()
            .map(|resource| index.subscribe(&web(), resource))
            .collect();
        for i in order {
            let older = manifests[i]
                .replace("app: v1", "app: web")
                .replace("service: web,", "service: v1,")
                .replace("[80]", "[81]");
            index.apply(events(&older));
            index.apply(events(&manifests[i]));
        }
        assert_eq!(look(&index), expected, "turn {turn}");
        let followed: Vec<Body> = early
            .iter()
            .map(|receiver| receiver.borrow().body.clone())
            .collect();
        assert_eq!(
            followed, expected,
            "turn {turn}: what was published on the way"
        );
        assert_eq!(index.problems(), found, "turn {turn}");
    }
}

#[test]
fn a_view_nobody_reads_is_freed_and_equal_ones_are_shared() {
    let index = index(&[&service("web", "web", "10.96.0.1")]);
    let held = index.subscribe(&web(), &set("default/web:80"));
    let shared = index.subscribe(&PodRef::new("a", "b"), &set("default/web:80"));
    assert!(Arc::ptr_eq(&held.borrow(), &shared.borrow()));
    for number in 0..10_000 {
        drop(index.subscribe(&web(), &set(&format!("default/x{number}:80"))));
    }
    assert!(index.numbers().views < 200);
    drop((held, shared));
    index.apply(events(&pod("web-1", "web", "10.0.0.1")));
    index.state.lock().published.sweep();
    assert_eq!(index.numbers().views, 0);
}

#[test]
fn names_of_sets_that_are_too_long_are_one_view() {
    let index = index(&[]);
    let long = |length: usize| set(&format!("default/{}:80", "x".repeat(length)));
    let held = [200, 300].map(|length| index.subscribe(&web(), &long(length)));
    assert!(Arc::ptr_eq(&held[0].borrow(), &held[1].borrow()));
    assert!(addresses(&held[0].borrow()).is_empty());
    assert_eq!(index.numbers().views, 1);
}

#[test]
fn problems_of_a_file_are_replaced_and_findings_added() {
    let index = index(&[&split(
        "s",
        "{service: web, backends: [{service: web, weight: 1}]}",
    )]);
    assert_eq!(index.problems().len(), 1, "D29: there is no such Service");
    let problem = |line| Problem {
        origin: Origin {
            file: "b.yaml".into(),
            line,
        },
        object: None,
        field: None,
        message: "broken".into(),
        severity: Severity::Error,
    };
    let tell = |problems| {
        index.apply(vec![Event::Problems {
            file: "b.yaml".into(),
            problems,
        }])
    };
    tell(vec![problem(1), problem(2)]);
    assert_eq!(index.problems().len(), 3);
    tell(vec![problem(2)]);
    assert_eq!(
        index
            .problems()
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .count(),
        1
    );
    tell(vec![]);
    index.apply(events(&service("web", "web", "10.96.0.1")));
    assert_eq!(index.problems(), []);
}

#[test]
fn synced_is_said_once_everything_was_told() {
    let index = index(&[]);
    let synced = index.synced();
    assert!(!*synced.borrow());
    index.apply(vec![Event::Synced]);
    assert!(*synced.borrow() && *index.synced().borrow());
}

/// Two thousand Services, one thousand splits and targets, and a proxy that watches all: a change touches only its own.
#[test]
fn a_large_world_stays_quick() {
    let mut all = String::new();
    for number in 0..2000 {
        let ip = format!("10.96.{}.{}", number / 250, number % 250 + 1);
        all += &service(&format!("s{number}"), &format!("a{number}"), &ip);
    }
    let index = index(&[&all]);
    for number in 0..1000 {
        index.apply(events(&split(
            &format!("t{number}"),
            &format!("{{service: s{number}, backends: [{{service: s1, weight: 1}}]}}"),
        )));
    }
    let sets: Vec<_> = (0..2000)
        .map(|n| index.subscribe(&web(), &set(&format!("default/s{n}:80"))))
        .collect();
    index.apply(events(&pod("p", "a7", "10.0.0.1")));
    let changed: Vec<usize> = (0..2000)
        .filter(|n| sets[*n].has_changed().unwrap())
        .collect();
    assert_eq!(changed, [7]);
}

/// A Service that changes costs one view for each pod it selects, whatever else is in the namespace.
#[test]
fn a_service_concerns_the_pods_it_selects() {
    let mut all = String::new();
    for number in 0..2000 {
        let ip = format!("10.96.{}.{}", number / 250, number % 250 + 1);
        all += &service(&format!("s{number}"), &format!("a{}", number % 200), &ip);
    }
    for number in 0..200 {
        let ip = format!("10.0.0.{}", number + 1);
        all += &pod(&format!("p{number}"), &format!("a{number}"), &ip);
    }
    let index = index(&[&all]);
    let subscribe =
        |n| index.subscribe(&PodRef::new("default", format!("p{n}")), &Resource::Inbound);
    let policies: Vec<_> = (0..200).map(subscribe).collect();
    let computed = |events| {
        let before = index.numbers().computed;
        index.apply(events);
        index.numbers().computed - before
    };
    let web = |ports| events(&service_with("s7", "a7", "10.96.0.8", ports));
    assert_eq!(
        computed(web("[{name: http, port: 80, targetPort: 8080}]")),
        1
    );
    assert!(policies[7].has_changed().unwrap());
    assert_eq!(computed(vec![delete(Kind::Service, "s7")]), 1);
    assert_eq!(
        computed(web("[{name: http, port: 80, targetPort: 8080}]")),
        1
    );
    assert_eq!(computed(events(&service("new", "other", "10.97.0.1"))), 0);
    let moved = service_with("s7", "a8", "10.96.0.8", "[{port: 80}]");
    assert_eq!(computed(events(&moved)), 2, "the old pod and the new one");
    let by_two = moved.replace("{app: a8}", "{app: a8, tier: x}");
    assert_eq!(
        computed(events(&by_two)),
        200,
        "the first to select by these labels"
    );
    let ported = by_two.replace("port: 80", "port: 81");
    assert_eq!(computed(events(&ported)), 0, "the last one as well");
    let again = by_two.replace("name: s7,", "name: s8,").replace("a8", "a9");
    assert_eq!(
        computed(events(&again)),
        1,
        "the pod that s8 selected before"
    );
}

/// Whatever order labels come and go in, a pod finds the Services that select it.
#[test]
fn a_pod_finds_its_services_by_any_set_of_labels() {
    let index =
        index(&[&pod("web-1", "web", "10.0.0.1").replace("app: web}", "app: web, tier: x}")]);
    let policy = index.subscribe(&web(), &Resource::Inbound);
    let ports = || match &policy.borrow().body {
        Body::Inbound(inbound) => inbound.ports.len(),
        other => panic!("{other:?}"),
    };
    let selecting = |name: &str, selector: &str, port: u16| {
        let ports = format!("[{{name: http, port: {port}}}]");
        let service = service_with(name, "web", "None", &ports);
        events(&service.replace("{app: web}", selector))
    };
    index.apply(selecting("a", "{tier: x}", 1));
    assert_eq!(ports(), 1);
    index.apply(selecting("b", "{app: web, tier: x}", 2));
    assert_eq!(ports(), 2);
    index.apply(selecting("c", "{app: web, tier: other}", 3));
    index.apply(selecting("d", "{}", 4));
    index.apply(selecting("e", "{app: web, tier: x, more: z}", 5));
    assert_eq!(ports(), 2);
    index.apply(selecting("b", "{app: other}", 2));
    assert_eq!(ports(), 1);
    index.apply(vec![delete(Kind::Service, "a")]);
    assert_eq!(ports(), 0);
}

#[test]
fn an_object_under_the_old_name_of_its_group_stands_in_for_one_that_is_not_there() {
    let group = |path: &str| {
        let text = format!(
            "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {{name: g}}\n\
             spec: {{matches: [{{name: m, pathRegex: {path}}}]}}\n"
        );
        let Some(Event::Apply(loaded)) = events(&text).pop() else {
            panic!("{text}");
        };
        loaded
    };
    let key = ObjectKey::new(Kind::HttpRouteGroup, "default", "g");
    let index = index(&[]);
    let legacy = |path: &str| {
        let mut loaded = group(path);
        loaded.origin.file = "kubernetes:httproutegroups.spec.smi-spec.io/default/g".into();
        Event::ApplyLegacy(loaded)
    };
    let in_force = |event: Event| {
        index.apply(vec![event]);
        index.read(|world| match world.object(&key).map(|it| &it.object) {
            Some(Object::HttpRouteGroup(group)) => format!("{:?}", group.matches[0].path),
            _ => String::new(),
        })
    };
    assert!(in_force(legacy("/old")).contains("/old"));
    assert!(in_force(legacy("/older")).contains("/older"), "it changes");
    assert!(in_force(Event::Apply(group("/new"))).contains("/new"));
    assert!(
        in_force(legacy("/old")).contains("/new"),
        "whatever it says"
    );
    assert!(in_force(Event::Delete(key.clone())).contains("/old"));
    assert!(in_force(Event::Apply(group("/new"))).contains("/new"));
    assert!(in_force(Event::DeleteLegacy(key.clone())).contains("/new"));
    assert_eq!(in_force(Event::Delete(key.clone())), "");
    assert!(in_force(legacy("/old")).contains("/old"));
    assert_eq!(in_force(Event::DeleteLegacy(key.clone())), "");
}
