//! Lists of a TrafficTarget that are empty: allowed until v1alpha2, a mistake since (D15).

use super::*;

#[test]
fn d15_a_list_that_was_emptied_in_an_old_version_is_no_mistake_of_the_new_one() {
    let account = json!({"kind": "ServiceAccount", "name": "a"});
    let rules = json!([{"kind": "TCPRoute", "name": "t"}]);
    let lists = |object: &Value| {
        let (loaded, _) = parse("t", &object.to_string());
        match loaded.first().map(|it| it.object.clone()) {
            Some(Object::TrafficTarget(it)) => Some((it.sources.len(), it.rules.len())),
            _ => None,
        }
    };
    for version in ["v1alpha1", "v1alpha2"] {
        for (sources, rules, expected) in [
            (json!([]), rules.clone(), (0, 1)),
            (json!(null), rules.clone(), (0, 1)),
            (json!([account]), json!([]), (1, 0)),
            (json!([]), json!([]), (0, 0)),
        ] {
            let first = target(version, account.clone(), sources, rules);
            let stored = to(&first, "v1alpha4");
            assert_eq!(lists(&stored), Some(expected), "{stored}");
            assert_eq!(lists(&to(&stored, "v1alpha3")), Some(expected));
            assert_eq!(to(&to(&stored, "v1alpha3"), version), first);
            // Without the word of the conversion it is a mistake, as it is for who writes the new version (D37).
            let mut forgotten = stored.clone();
            forgotten["metadata"]["annotations"] = json!({"a": "b"});
            assert_eq!(lists(&forgotten), None);
            // What was filled since is not empty on purpose any more.
            let mut filled = stored.clone();
            filled["spec"]["sources"] = json!([account]);
            filled["spec"]["rules"] = json!([{"kind": "TCPRoute", "name": "t"}]);
            assert_eq!(preserved(&to(&filled, "v1alpha3")), Value::Null);
        }
    }
}
