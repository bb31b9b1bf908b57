//! An answer for people.

use super::answer::{Answer, BackendAnswer, DecidedBy, Verdict};
use std::fmt::Write;

/// Some lines, the verdict first.
pub fn render(answer: &Answer) -> String {
    let mut text = String::new();
    let decision = &answer.decision;
    let status = decision
        .status
        .map(|status| format!(" {status}"))
        .unwrap_or_default();
    let code = decision
        .code
        .as_ref()
        .map(|code| format!(" ({code})"))
        .unwrap_or_default();
    let _ = writeln!(
        text,
        "{}{status}{code}: {}",
        decision.verdict.as_str().to_uppercase(),
        decision.reason
    );
    let from = answer
        .from
        .as_deref()
        .unwrap_or("somebody without an identity");
    line(
        &mut text,
        "request",
        &format!("{}, from {from} to {}", answer.request, answer.to),
    );
    if let Some(by) = decided(&decision.decided_by) {
        line(&mut text, "decided by", &by);
    }
    if let Some(by) = answer.route.as_ref().and_then(decided) {
        line(&mut text, "routed by", &by);
    }
    for one in &answer.backends {
        line(&mut text, "backend", &backend(one));
    }
    for one in &answer.also_applies {
        line(
            &mut text,
            "also applies",
            &format!("{} ({}): {}", one.object, one.setting, one.value),
        );
    }
    for one in &answer.not_applied {
        line(
            &mut text,
            "not applied",
            &format!("{}: {}", one.object, one.why),
        );
    }
    for one in &answer.would_allow {
        line(&mut text, "would allow", one);
    }
    for one in &answer.assumed {
        line(&mut text, "assumed", one);
    }
    text
}

fn line(text: &mut String, name: &str, value: &str) {
    // What somebody wrote into a name must not look like a line of ours, or steer a terminal.
    let value: String = value
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    let _ = writeln!(text, "  {name:<12} {value}");
}

fn decided(by: &DecidedBy) -> Option<String> {
    match (&by.object, &by.rule) {
        (Some(object), Some(rule)) if !rule.is_empty() => Some(format!("{object} ({rule})")),
        (Some(one), _) | (None, Some(one)) => Some(one.clone()),
        (None, None) => None,
    }
}

fn backend(one: &BackendAnswer) -> String {
    let mut text = format!(
        "{:.4} % to {}/{}:{} (weight {}, {} endpoint{})",
        one.share,
        one.namespace,
        one.service,
        one.port,
        one.weight,
        one.endpoints,
        if one.endpoints == 1 { "" } else { "s" }
    );
    if let Some(decision) = &one.decision {
        let verdict = match decision.verdict {
            Verdict::Mixed => "it depends on the pod",
            other => other.as_str(),
        };
        let _ = write!(text, ": {verdict}");
    }
    text
}
