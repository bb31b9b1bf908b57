//! IdentityBinding: which identities belong to a workload, by any of several schemes.

use super::TOP;
use crate::manifest::k8s::{Labels, ObjectMeta};
use crate::manifest::report::{Field, Report};
use crate::manifest::yaml::short;

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID 1.0 section 2.3: the longest id.
const MAX_ID: usize = 2048;
/// Most identities of a binding.
const MAX_IDS: usize = 1000;

/// An IdentityBinding. It says nothing about workloads of other namespaces than its own.
#[derive(Debug, Clone, PartialEq)]
pub struct IdentityBinding {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Pods with all these labels; never empty. Never together with `account` (D14).
    pub labels: Option<Labels>,
    /// SPIFFE ids, each with its `spiffe://`.
    pub identities: Vec<String>,
    /// A service account of the binding's namespace.
    pub account: Option<String>,
}

/// Reads an IdentityBinding. `None` if something is wrong; what, is in the report. A scheme that is not understood is
/// refused: it might be what narrows another (D35).
pub fn read(
    root: &Field<'_>,
    metadata: ObjectMeta,
    report: &mut Report,
) -> Option<IdentityBinding> {
    let spec = root.get("spec");
    let schemes = spec.get("schemes");
    spec.expect_map(report)?;
    schemes.expect_map(report)?;
    root.warn_unknown(&TOP, report);
    spec.warn_unknown(&["schemes"], report);
    schemes.reject_unknown(
        &["podLabelSelector", "spiffeIdentities", "serviceAccount"],
        report,
    );
    let labels = read_labels(&schemes.get("podLabelSelector"), report);
    let identities = read_identities(&schemes.get("spiffeIdentities"), report);
    let account = read_account(&schemes.get("serviceAccount"), report);
    let (labels, identities, account) = (labels?, identities?, account?);
    if labels.is_some() && account.is_some() {
        let message = "must not stand beside podLabelSelector: one of the two decides";
        report.error(&schemes.get("serviceAccount"), message);
        return None;
    }
    if labels.is_none() && account.is_none() && identities.is_empty() {
        let message = "must have podLabelSelector, spiffeIdentities or serviceAccount";
        report.error(&schemes, message);
        return None;
    }
    Some(IdentityBinding {
        metadata,
        labels,
        identities,
        account,
    })
}

/// Only `matchLabels` is defined; an empty one would be every pod, so it is refused.
fn read_labels(field: &Field<'_>, report: &mut Report) -> Option<Option<Labels>> {
    if !field.is_present() {
        return Some(None);
    }
    field.expect_map(report)?;
    field.reject_unknown(&["matchLabels"], report);
    let labels = field.get("matchLabels");
    let entries = labels.entries(report)?;
    if entries.is_empty() {
        report.error(&labels, "must have at least one label");
        return None;
    }
    let read = |(name, value): &(&str, Field<'_>)| {
        let text = value.text_if_any(report)?;
        Some(((*name).to_owned(), text.unwrap_or_default().to_owned()))
    };
    let labels: Vec<Option<_>> = entries.iter().map(read).collect();
    labels.into_iter().collect::<Option<Labels>>().map(Some)
}

fn read_account(field: &Field<'_>, report: &mut Report) -> Option<Option<String>> {
    match field.is_present() {
        true => field.name(report).map(str::to_owned).map(Some),
        false => Some(None),
    }
}

fn read_identities(field: &Field<'_>, report: &mut Report) -> Option<Vec<String>> {
    let items = field.items(report)?;
    if items.len() > MAX_IDS {
        let message = format!("has {} identities; at most {MAX_IDS}", items.len());
        report.error(field, message);
        return None;
    }
    let ids: Vec<Option<String>> = items.iter().map(|item| identity(item, report)).collect();
    ids.into_iter().collect()
}

/// The documents leave `spiffe://` out, others insist on it: both are read (D14).
fn identity(field: &Field<'_>, report: &mut Report) -> Option<String> {
    let text = field.text(report)?;
    let rest = text.strip_prefix(SCHEME).unwrap_or(text);
    if !is_spiffe(rest) {
        let message = format!(
            "{} is not a SPIFFE id: a trust domain and a path of letters, digits, '.', '-' and '_'",
            short(text)
        );
        report.error(field, message);
        return None;
    }
    Some(format!("{SCHEME}{rest}"))
}

/// SPIFFE-ID 1.0 section 2, without the scheme. No character of it can be taken for a pattern.
fn is_spiffe(text: &str) -> bool {
    let (domain, path) = text.split_once('/').unwrap_or((text, ""));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(fits);
    let domain = segment(domain) && !domain.bytes().any(|byte| byte.is_ascii_uppercase());
    text.len() + SCHEME.len() <= MAX_ID && domain && path.split('/').all(segment)
}
