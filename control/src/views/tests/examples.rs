//! The examples of the specification, in every version: each has the effect its text describes, and no other.

use crate::manifest::{Object, Severity, parse};
use crate::views::access::allow_udp;
use crate::views::fixtures::*;
use crate::views::split::routes;
use crate::views::world::{Reader, World};
use weft_proxy_api::policy::inbound::Ports;
use weft_proxy_api::policy::matching::RequestView;

/// The objects of one example of a file.
fn example(file: &str, name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/smi-spec");
    let text = std::fs::read_to_string(format!("{folder}/{file}.yaml")).unwrap();
    let sections = text
        .split("# == ")
        .find(|it| it.starts_with(&format!("{name}:")));
    let section = sections.unwrap_or_else(|| panic!("{file} has no {name}"));
    section.split_once('\n').unwrap().1.to_owned() + "---\n"
}

/// A pod of this account, and the objects.
fn serving(account: &str, objects: &str) -> World {
    let pod = pod("web-1", account, "10.0.0.1");
    let pod = pod.replace(
        "serviceAccountName: web",
        &format!("serviceAccountName: {account}"),
    );
    world(&[&pod, objects])
}

#[test]
fn a_target_for_one_path() {
    for version in 1..=4 {
        let text = example(&format!("access-v1alpha{version}"), "path-specific");
        let may = |caller: &str, port, request: &str| {
            may(&serving("service-a", &text), "web-1", caller, port, request)
        };
        assert!(may("default/prometheus", 8080, "GET /metrics"), "{version}");
        assert!(
            may("default/prometheus", 8080, "GET /metrics/more"),
            "open at the end"
        );
        assert!(!may("default/prometheus", 8080, "POST /metrics"));
        assert!(
            !may("default/prometheus", 8080, "GET /else"),
            "not every match of the group"
        );
        assert!(
            !may("default/prometheus", 9090, "GET /metrics"),
            "another port"
        );
        assert!(!may("default/other", 8080, "GET /metrics"));
        assert!(!may("other/prometheus", 8080, "GET /metrics"));
        assert!(!may("", 8080, "GET /metrics"));
        let world = serving("service-b", &text);
        assert!(!super::super::fixtures::may(
            &world,
            "web-1",
            "default/prometheus",
            8080,
            "GET /metrics"
        ));
    }
}

#[test]
fn two_targets_of_one_service() {
    for version in 1..=4 {
        let text = example(&format!("access-v1alpha{version}"), "api-service");
        let world = serving("api-service", &text);
        let may = |caller: &str, port, request: &str| may(&world, "web-1", caller, port, request);
        for caller in ["default/website-service", "default/payments-service"] {
            assert!(may(caller, 8080, "GET /api") && may(caller, 8080, "DELETE /api/x"));
            assert!(
                !may(caller, 8080, "GET /metrics"),
                "the other target's rule"
            );
            assert!(!may(caller, 9090, "GET /api"));
        }
        assert!(may("default/prometheus", 8080, "GET /metrics"));
        assert!(!may("default/prometheus", 8080, "GET /api"));
        assert!(!may("default/prometheus", 8080, "PUT /metrics"));
        // Before v1alpha3 this target names no port.
        assert_eq!(may("default/prometheus", 9090, "GET /metrics"), version < 3);
    }
}

#[test]
fn ports_of_tcp_and_udp() {
    for version in [3, 4] {
        let text = example(&format!("access-v1alpha{version}"), "l4");
        let world = serving("server", &text);
        for port in [8300, 8301, 8302] {
            assert!(may_connect(&world, "web-1", "default/client", port));
        }
        assert!(!may_connect(&world, "web-1", "default/client", 8303));
        assert!(!may_connect(&world, "web-1", "default/other", 8300));
        let reader = Reader::new(&world);
        let udp = allow_udp(&reader, reader.pod("default", "web-1").unwrap());
        assert_eq!(udp.len(), 1);
        assert_eq!(
            udp[0].ports,
            Ports::Only(vec![8301, 8302]),
            "8300 is blocked"
        );
    }
}

#[test]
fn d14_the_example_of_a_binding_contradicts_its_text() {
    let (loaded, problems) = parse("t", &example("access-v1alpha4", "binding"));
    assert!(loaded.is_empty());
    assert_eq!(
        problems[0].field.as_deref(),
        Some("spec.schemes.serviceAccount")
    );
    for name in ["binding-by-account", "binding-by-label"] {
        let (loaded, problems) = parse("t", &example("access-v1alpha4", name));
        assert!(problems.is_empty(), "{problems:?}");
        let Object::IdentityBinding(binding) = &loaded[0].object else {
            panic!("{loaded:?}")
        };
        assert_eq!(binding.identities.len(), 2);
    }
}

/// The matches of an example's group that a request fits.
fn fitting(file: &str, name: &str, request: &str, headers: &[(&str, &str)]) -> Vec<String> {
    let (loaded, problems) = parse("t", &example(file, name));
    assert!(problems.is_empty(), "{problems:?}");
    let Object::HttpRouteGroup(group) = &loaded[0].object else {
        panic!("{loaded:?}")
    };
    let (method, path) = request.split_once(' ').unwrap();
    let mut map = http::HeaderMap::new();
    for (name, value) in headers {
        map.append(
            name.parse::<http::HeaderName>().unwrap(),
            value.parse().unwrap(),
        );
    }
    let view = RequestView {
        method,
        path,
        host: "web",
        headers: &map,
    };
    let fitting = group.matches.iter().filter(|item| item.fits(&view));
    fitting.map(|item| item.name.clone()).collect()
}

#[test]
fn groups_of_routes() {
    for version in 1..=4 {
        let file = format!("specs-v1alpha{version}");
        let fit = |request: &str| fitting(&file, "routes", request, &[]);
        assert_eq!(fit("GET /metrics"), ["metrics"]);
        assert_eq!(fit("POST /ping"), ["health"]);
        assert!(
            fit("POST /metrics").is_empty()
                && fit("GET /x/metrics").is_empty()
                && fit("GET /").is_empty()
        );
        assert_eq!(
            fitting(&file, "everything", "PATCH /any", &[]),
            ["everything"]
        );
    }
}

#[test]
fn groups_with_headers() {
    let insider = ("cookie", "a=b;type=insider;c=d");
    let (android, firefox) = (
        ("user-agent", "Linux; Android 14"),
        ("user-agent", "Firefox/130"),
    );
    let iphone = ("user-agent", "Mozilla (iPhone; x)");
    for version in 2..=4 {
        let file = format!("specs-v1alpha{version}");
        let fit = |name: &str, request: &str, headers: &[_]| {
            !fitting(&file, name, request, headers).is_empty()
        };
        for name in ["android", "android-or-firefox"] {
            assert!(fit(name, "PUT /any", &[android, insider]));
            assert!(
                !fit(name, "PUT /any", &[android]) && !fit(name, "PUT /any", &[insider]),
                "both headers"
            );
            assert!(!fit(
                name,
                "PUT /any",
                &[android, ("cookie", "type=insiders")]
            ));
        }
        assert!(
            fit("android-or-firefox", "GET /", &[firefox]) && !fit("android", "GET /", &[firefox])
        );
        assert!(fit("iphone", "GET /api/x", &[iphone]) && fit("iphone", "HEAD /api/x", &[iphone]));
        for (request, header) in [
            ("POST /api/x", iphone),
            ("GET /other", iphone),
            ("GET /api/x", firefox),
        ] {
            assert!(!fit("iphone", request, &[header]), "{request}");
        }
    }
}

#[test]
fn routes_of_tcp_and_udp() {
    let ports = |file: &str, name: &str| {
        let (loaded, problems) = parse("t", &example(file, name));
        assert!(problems.is_empty(), "{problems:?}");
        match &loaded[0].object {
            Object::TcpRoute(route) => route.ports.clone(),
            Object::UdpRoute(route) => route.ports.clone(),
            other => panic!("{other:?}"),
        }
    };
    for version in 1..=3 {
        assert_eq!(ports(&format!("specs-v1alpha{version}"), "tcp"), Ports::Any);
    }
    assert_eq!(
        ports("specs-v1alpha4", "tcp"),
        Ports::Only(vec![3306, 6446])
    );
    assert_eq!(ports("specs-v1alpha4", "udp"), Ports::Only(vec![989, 990]));
    for name in ["tcp-any", "udp-any"] {
        assert_eq!(ports("specs-v1alpha4", name), Ports::Any);
    }
}

/// `backend=weight …` of each route of a root, the conditional ones marked.
fn shares(world: &World, root: &str, port: u16) -> Vec<String> {
    let reader = Reader::new(world);
    let service = reader.service("default", root).unwrap();
    let show = |route: &weft_proxy_api::policy::outbound::Route| {
        let backends = route
            .backends
            .iter()
            .map(|it| format!("{}={}", it.name.name, it.weight));
        let mark = if route.matches.is_empty() { "" } else { "if " };
        format!("{mark}{}", backends.collect::<Vec<_>>().join(" "))
    };
    routes(&reader, service, port).iter().map(show).collect()
}

fn split_of(file: &str, name: &str, services: &[&str]) -> World {
    let services: String = services
        .iter()
        .map(|name| service(name, name, "None"))
        .collect();
    world(&[&services, &example(file, name)])
}

#[test]
fn splits_by_weight() {
    let all = |version: u8, name: &str, services: &[&str]| {
        let world = split_of(&format!("split-v1alpha{version}"), name, services);
        shares(&world, services[0], 80)
    };
    assert_eq!(
        all(1, "weights", &["numbers", "one", "two", "three"]),
        ["one=1 two=10 three=150"]
    );
    let website = &["my-website", "my-website-v1", "my-website-v2"];
    assert_eq!(
        all(2, "weights", website),
        ["my-website-v1=50 my-website-v2=50"]
    );
    for version in 3..=4 {
        let website = &["website", "website-v1", "website-v2"];
        assert_eq!(
            all(version, "weights", website),
            ["website-v1=90 website-v2=10"]
        );
    }
    for version in 1..=4 {
        let (tenth, unit) = if version == 1 {
            ("web-next=1 web-current=9", 1)
        } else {
            ("web-next=100 web-current=900", 100)
        };
        assert_eq!(
            all(version, "canary", &["web", "web-next", "web-current"]),
            [tenth]
        );
        // A backend that is missing leaves its part to the others; without any there is nobody, never the root.
        assert_eq!(
            all(version, "canary", &["web", "web-next"]),
            [format!("web-next={unit}")]
        );
        assert_eq!(all(version, "canary", &["web"]), [""]);
        // The root among its own backends is its own endpoints.
        let own = if version == 1 {
            "foobar-next=1 foobar=9"
        } else {
            "foobar-next=100 foobar=900"
        };
        assert_eq!(all(version, "self", &["foobar", "foobar-next"]), [own]);
    }
}

#[test]
fn a_rollout_step_by_step() {
    for version in 1..=4 {
        let step = |name: &str, services: &[&str]| {
            let world = split_of(&format!("split-v1alpha{version}"), name, services);
            shares(&world, "foobar", 80).join("|")
        };
        let (first, both) = (
            &["foobar", "foobar-v1"][..],
            &["foobar", "foobar-v1", "foobar-v2"][..],
        );
        let (before, after, third) = match version {
            1 => (
                "foobar-v1=1",
                "foobar-v1=1 foobar-v2=0",
                "foobar-v1=10 foobar-v2=5",
            ),
            _ => (
                "foobar-v1=100",
                "foobar-v1=100 foobar-v2=0",
                "foobar-v1=1000 foobar-v2=500",
            ),
        };
        assert_eq!(
            step("rollout-1", first),
            before,
            "the second version does not exist yet"
        );
        assert_eq!(step("rollout-1", both), after);
        assert_eq!(step("rollout-2", both), third);
        assert_eq!(step("rollout-3", both), "foobar-v2=1");
    }
}

#[test]
fn d26_d34_firefox_goes_to_the_second_version() {
    for version in 3..=4 {
        let file = format!("split-v1alpha{version}");
        let services = ["website", "website-v1", "website-v2"];
        let world = split_of(&file, "ab-test", &services);
        assert_eq!(
            shares(&world, "website", 80),
            ["if website-v1=0 website-v2=100", "website=1"]
        );
        // The group of the example stands in the layout of v1alpha2: it is read, and told.
        let (_, problems) = parse("t", &example(&file, "ab-test"));
        assert!(problems.iter().all(|it| it.severity == Severity::Warning));
        assert!(
            problems
                .iter()
                .any(|it| it.message.contains("belongs under spec"))
        );
        // Without its group the split applies to nobody.
        let split = example(&file, "ab-test");
        let only = split.split("---\n").next().unwrap();
        let services: String = services
            .iter()
            .map(|name| service(name, name, "None"))
            .collect();
        assert_eq!(
            shares(&self::world(&[&services, only]), "website", 80),
            ["website=1"]
        );
    }
}

#[test]
fn d22_ports_of_birds() {
    for version in 1..=4 {
        let split = example(&format!("split-v1alpha{version}"), "birds");
        let half = if version == 1 { 1 } else { 50 };
        let both = format!("blue-birds={half} green-birds={half}");
        let valid = world(&[&example("birds", "valid"), &split]);
        assert_eq!(shares(&valid, "birds", 8080), std::slice::from_ref(&both));
        assert_eq!(shares(&valid, "birds", 9090), [both]);
        let invalid = world(&[&example("birds", "invalid"), &split]);
        assert_eq!(
            shares(&invalid, "birds", 8080),
            [format!("green-birds={half}")]
        );
        let told = problems(&invalid);
        assert!(
            told.iter().any(|it| it.message.contains("no port 8080")),
            "{told:?}"
        );
    }
}
