//! A TrafficSplit as Gateway API: routes whose parent is the root Service (GAMMA). What that cannot say is listed.

use crate::describe::routes;
use crate::manifest::{Kind, Object, ObjectKey};
use crate::simulate::Simulation;
use crate::smi::split::TrafficSplit;
use crate::views::world::Reader;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::matching::{HttpMatch, TextMatch};
use weft_proxy_api::policy::outbound::{Backend, Route, Service};

/// Largest weight of a backendRef.
const MAX_WEIGHT: u64 = 1_000_000;
/// Most matches of a rule.
const MAX_MATCHES: usize = 64;

/// Objects of Gateway API, and what they do not say.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exported {
    /// The objects.
    pub objects: Vec<Value>,
    /// What is lost.
    #[serde(rename = "notExpressed")]
    pub lost: Vec<String>,
    /// What holds, but not everywhere.
    pub notes: Vec<String>,
    /// Why this is perhaps of a state before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outdated: Option<String>,
}

/// An object as Gateway API; the error says that there is no such object.
pub fn gateway_api(sim: &Simulation, key: &ObjectKey) -> Result<Exported, String> {
    let loaded = sim.state().world.object(key);
    let mut out = Exported::default();
    match &loaded.ok_or_else(|| format!("there is no {key}"))?.object {
        Object::TrafficSplit(split) => out.split(sim, split),
        Object::TrafficTarget(_) => out.lost.push(format!(
            "{key}: Gateway API has no object that says who may call whom; use the policy of the implementation"
        )),
        Object::HttpRouteGroup(_) => out.lost.push(format!(
            "{key}: by itself it has no effect; it is exported with each TrafficSplit that names it"
        )),
        _ => return Err(format!("{} is no kind of SMI that can be exported", key.kind)),
    }
    Ok(out)
}

impl Exported {
    fn split(&mut self, sim: &Simulation, split: &TrafficSplit) {
        let reader = Reader::new(&sim.state().world);
        let namespace = &split.metadata.namespace;
        let object = format!("TrafficSplit {namespace}/{}", split.metadata.name);
        let root = ObjectKey::new(Kind::Service, namespace, &split.service);
        let Some(service) = reader.service(namespace, &split.service) else {
            self.lost.push(format!(
                "{object}: there is no {root}, so its ports are not known"
            ));
            return;
        };
        let mut in_force = false;
        for port in &service.spec.ports {
            let policy = routes(sim, &reader, &root, port.port);
            let Some(policy) = policy else { continue };
            let mine = |route: &&Route| route.object.as_ref() == Some(&object);
            if let Some(route) = policy.routes.iter().find(mine) {
                in_force = true;
                self.port(split, &policy, route);
            }
        }
        if !in_force {
            self.lost.push(format!(
                "{object} is not in force: `meshctl describe` says why"
            ));
        }
    }

    fn port(&mut self, split: &TrafficSplit, service: &Service, route: &Route) {
        let name = &service.name;
        for missing in left_out(split, route) {
            self.notes.push(format!(
                "port {}: {missing} takes no part, and is left out",
                name.port
            ));
        }
        if service.routes.len() > 2 || (route.matches.is_empty() && service.routes.len() > 1) {
            self.lost.push(format!(
                "port {}: other TrafficSplits of the same root decide as well, and two routes do not add up in the same order",
                name.port
            ));
        }
        let bytes = matches!(service.protocol, Protocol::Opaque | Protocol::Tls);
        let kind = match bytes {
            true => ("gateway.networking.k8s.io/v1alpha2", "TCPRoute"),
            false => ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        };
        if bytes && !route.matches.is_empty() {
            let why = match service.protocol {
                Protocol::Tls => {
                    "conditions of its server name would be a TLSRoute, which is not written"
                }
                _ => "it carries bytes, which fit no condition",
            };
            self.lost.push(format!("port {}: {why}", name.port));
            return;
        }
        let mut rules = vec![self.rule(route)];
        if !route.matches.is_empty() {
            // A route replaces the Service's own behaviour: who fits no condition must be led there explicitly.
            let rest = service.routes.last();
            rules.extend(
                rest.filter(|rest| rest.matches.is_empty())
                    .map(|rest| self.rule(rest)),
            );
        }
        self.objects.push(json!({
            "apiVersion": kind.0,
            "kind": kind.1,
            "metadata": {
                "name": format!("{}-{}", split.metadata.name, name.port),
                "namespace": name.namespace,
            },
            "spec": {
                "parentRefs": [{ "group": "", "kind": "Service", "name": name.name, "port": name.port }],
                "rules": rules,
            },
        }));
    }

    fn rule(&mut self, route: &Route) -> Value {
        let mut rule = Map::new();
        let matches: Vec<Value> = route.matches.iter().flat_map(|it| self.http(it)).collect();
        if matches.len() > MAX_MATCHES {
            self.lost.push(format!(
                "{} matches are more than a rule may have",
                matches.len()
            ));
        }
        if !matches.is_empty() {
            rule.insert("matches".to_owned(), matches.into());
        }
        rule.insert("backendRefs".to_owned(), self.backends(&route.backends));
        rule.into()
    }

    fn backends(&mut self, backends: &[Backend]) -> Value {
        let divisor = backends
            .iter()
            .fold(0, |all, it| gcd(all, it.weight))
            .max(1);
        let large = backends
            .iter()
            .map(|it| it.weight / divisor)
            .max()
            .unwrap_or(0);
        let scale = large.div_ceil(MAX_WEIGHT).max(1);
        if scale > 1 {
            self.lost
                .push("weights above 1000000 are rounded".to_owned());
        }
        let fits = backends.iter().all(|it| it.weight <= MAX_WEIGHT);
        let weight = |it: &Backend| match (fits, it.weight) {
            (true, weight) => weight,
            (false, 0) => 0,
            (false, weight) => (weight / divisor / scale).max(1),
        };
        let one = |it: &Backend| json!({ "name": it.name.name, "port": it.name.port, "weight": weight(it) });
        backends.iter().map(one).collect()
    }

    /// A match, once for each of its methods: there a match has one.
    fn http(&mut self, one: &HttpMatch) -> Vec<Value> {
        let mut common = Map::new();
        if let Some(path) = &one.path {
            common.insert("path".to_owned(), self.path(path));
        }
        let headers: Vec<Value> = one
            .headers
            .iter()
            .map(|header| match &header.value {
                TextMatch::Exact(text) => {
                    json!({ "type": "Exact", "name": header.name, "value": text })
                }
                other => {
                    self.note_patterns();
                    json!({ "type": "RegularExpression", "name": header.name, "value": pattern(other) })
                }
            })
            .collect();
        if !headers.is_empty() {
            common.insert("headers".to_owned(), headers.into());
        }
        if one.methods.is_empty() {
            return vec![common.into()];
        }
        let methods = one.methods.iter().map(|method| {
            let mut one = common.clone();
            one.insert("method".to_owned(), method.as_str().into());
            Value::from(one)
        });
        methods.collect()
    }

    fn path(&mut self, path: &TextMatch) -> Value {
        match path {
            TextMatch::Exact(text) => json!({ "type": "Exact", "value": text }),
            TextMatch::Prefix(text) if text == "/" => json!({ "type": "PathPrefix", "value": "/" }),
            other => {
                self.note_patterns();
                json!({ "type": "RegularExpression", "value": pattern(other) })
            }
        }
    }

    fn note_patterns(&mut self) {
        let note =
            "RegularExpression is not supported everywhere; it is taken to fit the whole text"
                .to_owned();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// As a pattern for the whole text. A PathPrefix goes by whole segments, unlike ours.
fn pattern(text: &TextMatch) -> String {
    match text {
        TextMatch::Exact(text) => escape(text),
        TextMatch::Prefix(text) => format!("{}.*", escape(text)),
        TextMatch::RegexPrefix(pattern) => format!("(?:{}).*", pattern.source()),
        TextMatch::RegexFull(pattern) => pattern.source().to_owned(),
    }
}

fn escape(text: &str) -> String {
    let special = |letter| r"\.+*?()|[]{}^$#&-~".contains(letter);
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if special(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

fn left_out(split: &TrafficSplit, route: &Route) -> Vec<String> {
    let there = |name: &str| route.backends.iter().any(|it| it.name.name == name);
    let gone = split.backends.iter().filter(|it| !there(&it.service));
    gone.map(|it| it.service.clone()).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        b => gcd(b, a % b),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::describe::describe;
    use crate::simulate::files::File;
    use crate::simulate::{Files, Simulation};
    use crate::views::Mesh;

    const SPLIT: &str = "apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2}
spec: {selector: {app: web, v: '2'}, ports: [{port: 80}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: g}
spec: {matches: [{name: m, pathRegex: /a, methods: [GET, HEAD], headers: [{x-b: 'y.*'}]}]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: s}
spec:
  service: web
  backends: [{service: web, weight: 9}, {service: v2, weight: 1}, {service: gone, weight: 1}]
";
    const WHEN: &str = "  matches: [{kind: HTTPRouteGroup, name: g}]\n";

    fn simulation(text: &str) -> Simulation {
        let file = File {
            id: "a".into(),
            shown: "a.yaml".into(),
            text: text.into(),
        };
        Simulation::new(&Files::new(vec![file]), Mesh::default())
    }

    fn key(kind: Kind, name: &str) -> ObjectKey {
        ObjectKey::new(kind, "default", name)
    }

    #[test]
    fn a_split_is_a_route_with_weights() {
        let exported = gateway_api(&simulation(SPLIT), &key(Kind::TrafficSplit, "s")).unwrap();
        assert_eq!(exported.lost, [""; 0]);
        assert_eq!(
            exported.notes,
            ["port 80: gone takes no part, and is left out"]
        );
        let parent = json!([{ "group": "", "kind": "Service", "name": "web", "port": 80 }]);
        assert_eq!(exported.objects[0]["kind"], "HTTPRoute");
        assert_eq!(exported.objects[0]["spec"]["parentRefs"], parent);
        let refs = json!([{ "backendRefs": [
            { "name": "web", "port": 80, "weight": 9 },
            { "name": "v2", "port": 80, "weight": 1 },
        ]}]);
        assert_eq!(exported.objects[0]["spec"]["rules"], refs);
    }

    #[test]
    fn conditions_become_matches_and_the_rest_keeps_its_way() {
        let all = format!("{SPLIT}{WHEN}");
        let exported = gateway_api(&simulation(&all), &key(Kind::TrafficSplit, "s")).unwrap();
        let rules = &exported.objects[0]["spec"]["rules"];
        assert_eq!(
            rules[0]["matches"][1],
            json!({
                "path": { "type": "RegularExpression", "value": "/a.*" },
                "headers": [{ "type": "RegularExpression", "name": "x-b", "value": "y.*" }],
                "method": "HEAD",
            })
        );
        assert_eq!(
            rules[1]["backendRefs"],
            json!([{ "name": "web", "port": 80, "weight": 1 }])
        );
    }

    #[test]
    fn what_cannot_be_said_is_said_to_be_lost() {
        let bytes = SPLIT.replacen("{port: 80}", "{port: 80, name: tcp}", 1);
        let simulation = simulation(&format!("{bytes}{WHEN}"));
        let exported = gateway_api(&simulation, &key(Kind::TrafficSplit, "s")).unwrap();
        assert_eq!((exported.objects.len(), exported.lost.len()), (0, 1));
        let group = gateway_api(&simulation, &key(Kind::HttpRouteGroup, "g")).unwrap();
        assert_eq!(group.lost.len(), 1);
        assert!(gateway_api(&simulation, &key(Kind::TrafficSplit, "t")).is_err());
    }

    const DATAGRAMS: &str = "apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {serviceAccountName: web, containers: [{name: app, image: example}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: UDPRoute
metadata: {name: dns}
spec: {matches: {ports: [53]}}
---
apiVersion: access.smi-spec.io/v1alpha4
kind: TrafficTarget
metadata: {name: t}
spec:
  destination: {kind: ServiceAccount, name: web}
  sources: [{kind: ServiceAccount, name: front}]
  rules: [{kind: UDPRoute, name: dns}]
";

    #[test]
    fn d09_datagrams_are_described_apart() {
        let simulation = simulation(DATAGRAMS);
        let pod = describe(&simulation, &key(Kind::Pod, "web")).unwrap();
        assert_eq!(pod["udp"][0]["ports"], json!([53]));
        assert_eq!(pod["policy"]["allow"], json!([]));
        let target = describe(&simulation, &key(Kind::TrafficTarget, "t")).unwrap();
        let there = &target["destination"][0];
        assert_eq!(there["udp"]["ports"], json!([53]));
        assert_eq!(there["allows"], Value::Null);
    }

    #[test]
    fn an_object_is_described_with_what_became_of_it() {
        let simulation = simulation(SPLIT);
        let split = describe(&simulation, &key(Kind::TrafficSplit, "s")).unwrap();
        assert_eq!(split["inForce"], true);
        assert_eq!(split["ports"][0]["routes"][0]["backends"][0]["share"], 90.0);
        assert_eq!(split["writtenAt"], "a.yaml:16");
        let told = split["findings"][0].as_str().unwrap();
        assert!(
            told.starts_with("W111 spec.backends[2].service: there is no"),
            "{split:#}"
        );
        let service = describe(&simulation, &key(Kind::Service, "v2")).unwrap();
        assert_eq!(
            service["ports"][0]["endpoints"][0]["pod"],
            "default/v2-assumed"
        );
        let pod = describe(&simulation, &key(Kind::Pod, "v2-assumed")).unwrap();
        assert_eq!(pod["policy"]["access"], "permissive");
        assert_eq!(pod["services"], json!(["v2", "web"]));
    }
}
