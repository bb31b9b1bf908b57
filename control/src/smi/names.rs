//! Names of Services as people write them in a split (D28).

use crate::manifest::report::{Field, Report, is_label};
use crate::manifest::yaml::short;

/// The Service in `namespace` that a field names: `web`, `web.ns`, `web.ns.svc`, `web.ns.svc.<domain>`, with or without a
/// trailing dot. A Service of another namespace, or a name outside, is refused.
pub(super) fn service<'a>(
    field: &Field<'a>,
    namespace: &str,
    report: &mut Report,
) -> Option<&'a str> {
    let text = field.text(report)?;
    match split(text, namespace) {
        Ok(name) => Some(name),
        Err(message) => {
            report.error(field, message);
            None
        }
    }
}

fn split<'a>(text: &'a str, namespace: &str) -> Result<&'a str, String> {
    let labels: Vec<&str> = text
        .strip_suffix('.')
        .unwrap_or(text)
        .split('.')
        .take(64)
        .collect();
    if text.len() > 253
        || !labels
            .iter()
            .all(|label| is_label(label) && label.len() <= 63)
    {
        return Err(format!("{} is not the name of a Service", short(text)));
    }
    let (name, within, rest) = match *labels.as_slice() {
        [name] => return Ok(name),
        [name, within] => (name, within, None),
        [name, within, word, ..] => (name, within, Some(word)),
        [] => return Err("must not be empty".to_owned()),
    };
    if rest.is_some_and(|word| word != "svc") {
        return Err(format!(
            "{} is not a Service of the mesh; write the name of a Service in namespace {namespace}",
            short(text)
        ));
    }
    if within != namespace {
        return Err(format!(
            "{} is not in the namespace of the split ({namespace})",
            short(text)
        ));
    }
    Ok(name)
}
