//! What may be asked, and how.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::manifest::Kind;

#[test]
fn a_query_is_read_or_refused_with_a_reason() {
    let asked = Asked::read("object=split%2Fshop%2Fweb&access=audit&form=effective").unwrap();
    let key = ObjectKey::new(Kind::TrafficSplit, "shop", "web");
    assert_eq!(
        (asked.object, asked.access),
        (Some(key), Some(Access::Audit))
    );
    assert_eq!(asked.form.as_deref(), Some("effective"));
    assert_eq!(Asked::read("").unwrap(), Asked::default());
    let recent = Asked::read("recent=1500").unwrap().recent;
    assert_eq!(recent, Some(Duration::from_millis(1500)));
    for (query, part) in [
        ("object=split/web", "KIND/NAMESPACE/NAME"),
        ("object=thing/a/b", "KIND/NAMESPACE/NAME"),
        ("access=lax", "lax"),
        ("recent=-1", "milliseconds"),
        ("x=1", "unknown"),
        ("object=%zz", "text"),
    ] {
        let reason = Asked::read(query).unwrap_err();
        assert!(reason.contains(part), "{query}: {reason}");
    }
}
