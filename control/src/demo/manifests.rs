//! The demonstration's manifests, as anybody would write them.

/// Workloads and Services, not injected: the node's injector does that.
pub(super) const APP: &str = include_str!("../../manifests/demo/app.yaml");
/// Who may call whom.
pub(super) const POLICY: &str = include_str!("../../manifests/demo/policy.yaml");
/// The permission the story takes away.
pub(super) const WEB_TO_FRONT: &str = include_str!("../../manifests/demo/web-to-front.yaml");
/// The split the story shifts.
const SPLIT: &str = include_str!("../../manifests/demo/split.yaml");

/// Namespace of everything.
pub(super) const NAMESPACE: &str = "loom";

/// The split with these weights for v1 and v2.
pub(super) fn split(v1: u32, v2: u32) -> String {
    SPLIT
        .replace("weight: 90", &format!("weight: {v1}"))
        .replace("weight: 10", &format!("weight: {v2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_takes_any_weights() {
        let text = split(50, 51);
        assert!(
            text.contains("weight: 50 }") && text.contains("weight: 51 }"),
            "{text}"
        );
    }

    #[test]
    fn every_manifest_is_accepted() {
        for text in [APP, POLICY, WEB_TO_FRONT, SPLIT] {
            let (objects, problems) = crate::manifest::parse("demo", text);
            assert!(!objects.is_empty());
            assert!(problems.is_empty(), "{problems:?}");
        }
    }
}
