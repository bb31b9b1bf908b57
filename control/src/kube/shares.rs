//! What the status of a TrafficSplit says beside its conditions: for each port of its root the weights that are in force, and
//! the backends that take no part. Pure.

use crate::manifest::{Kind, Object, ObjectKey};
use crate::smi::split::TrafficSplit;
use crate::views::pod::is_tcp;
use crate::views::split::{backend, is_external, routes};
use crate::views::world::{Reader, World};
use serde_json::{Value, json};

/// Most backends told, of all ports together: a status must stay far below what an object may hold.
const MOST: usize = 500;

/// The ports, as a list that is empty where the split is not in force; `None`: the object has no such status.
pub(super) fn ports(world: &World, key: &ObjectKey) -> Option<Value> {
    if key.kind != Kind::TrafficSplit {
        return None;
    }
    let reader = Reader::new(world);
    Some(match world.object(key).map(|loaded| &loaded.object) {
        Some(Object::TrafficSplit(split)) => shares(&reader, split),
        _ => json!([]),
    })
}

fn shares(reader: &Reader<'_>, split: &TrafficSplit) -> Value {
    let namespace = &split.metadata.namespace;
    let object = format!("TrafficSplit {namespace}/{}", split.metadata.name);
    let Some(root) = reader.service(namespace, &split.service) else {
        return json!([]);
    };
    let mut told = Vec::new();
    let tcp = root.spec.ports.iter();
    let tcp = tcp.filter(|port| is_tcp(port.protocol.as_deref()));
    for port in tcp.take(MOST / split.backends.len().max(1)) {
        let all = routes(reader, root, port.port);
        let Some(mine) = all.iter().find(|it| it.object.as_ref() == Some(&object)) else {
            continue;
        };
        let backends = mine.backends.iter();
        let backends = backends.map(|it| json!({"service": it.name.name, "weight": it.weight}));
        let excluded = split.backends.iter().filter_map(|it| {
            let why = left_out(reader, namespace, &it.service, port.port)?;
            Some(json!({"service": it.service, "reason": why}))
        });
        told.push(json!({
            "port": port.port,
            "backends": backends.collect::<Vec<_>>(),
            "excluded": excluded.collect::<Vec<_>>(),
        }));
    }
    told.into()
}

/// One word for why a backend takes no part on a port.
fn left_out(reader: &Reader<'_>, namespace: &str, name: &str, port: u16) -> Option<&'static str> {
    if backend(reader, namespace, name, port).is_some() {
        return None;
    }
    Some(match reader.service(namespace, name) {
        None => "NotFound",
        Some(service) if is_external(service) => "ExternalName",
        Some(_) => "NoSuchPort",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::views::fixtures::{service, service_with, split, world};

    fn told(objects: &[&str], name: &str) -> Value {
        let key = ObjectKey::new(Kind::TrafficSplit, "default", name);
        ports(&world(objects), &key).unwrap()
    }

    #[test]
    fn a_split_tells_its_weights_and_who_takes_no_part() {
        let root = "[{name: a, port: 80}, {name: b, port: 90}]";
        let both = root.replace(']', ", {name: c, port: 53, protocol: UDP}]");
        let web = service_with("web", "web", "10.96.0.1", &both);
        let v1 = service_with("v1", "v1", "10.96.0.2", root);
        let v2 = service("v2", "v2", "10.96.0.3");
        let backends = "backends: [{service: v1, weight: 9}, {service: v2, weight: 1}, {service: v3, weight: 5}]";
        let own = split("own", &format!("{{service: web, {backends}}}"));
        let later = split("second", &format!("{{service: web, {backends}}}"));
        let all = [&*web, &*v1, &*v2, &*own, &*later];
        let missing = json!({"service": "v3", "reason": "NotFound"});
        let expected = json!([
            {
                "port": 80,
                "backends": [{"service": "v1", "weight": 9}, {"service": "v2", "weight": 1}],
                "excluded": [missing],
            },
            {
                "port": 90,
                "backends": [{"service": "v1", "weight": 9}],
                "excluded": [{"service": "v2", "reason": "NoSuchPort"}, missing],
            },
        ]);
        assert_eq!(told(&all, "own"), expected);
        assert_eq!(told(&all, "second"), json!([]), "the other one is in force");
        assert_eq!(told(&all[1..], "own"), json!([]), "there is no root");
        assert_eq!(told(&all, "third"), json!([]));
        let other = ObjectKey::new(Kind::Service, "default", "web");
        assert_eq!(ports(&world(&all), &other), None);
    }
}
