//! The small forms in a ServicePolicy: times, counts, shares, statuses, gRPC codes. Each takes a field that may be absent
//! (`Some(None)`), and reports what cannot be read (`None`).

use crate::manifest::report::{Field, Report};
use crate::manifest::yaml::{Value, short};
use std::ops::RangeInclusive;
use std::time::Duration;
use weft_proxy_api::policy::settings::{MILLION, bounds};

/// gRPC codes by name; the first is code 1.
const CODES: [&str; 16] = [
    "cancelled",
    "unknown",
    "invalid-argument",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
];

/// A whole number in a range.
pub(super) fn count(
    field: &Field<'_>,
    range: RangeInclusive<u32>,
    report: &mut Report,
) -> Option<Option<u32>> {
    let number = match field.value() {
        None => return Some(None),
        Some(Value::Int(number)) => u32::try_from(*number).ok(),
        Some(_) => None,
    };
    match number.filter(|number| range.contains(number)) {
        Some(number) => Some(Some(number)),
        None => refuse(
            field,
            format!(
                "must be a whole number from {} to {}",
                range.start(),
                range.end()
            ),
            report,
        ),
    }
}

/// A time in a range of milliseconds.
pub(super) fn time(
    field: &Field<'_>,
    range: RangeInclusive<u32>,
    report: &mut Report,
) -> Option<Option<Duration>> {
    let text = match field.value() {
        None => return Some(None),
        Some(Value::Text(text)) => text,
        Some(_) => return refuse(field, "must be a time such as 250ms or 1m30s", report),
    };
    let shown = |ms: &u32| match ms % 1000 {
        0 => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    };
    match nanoseconds(text) {
        None => refuse(field, "must be a time such as 250ms or 1m30s", report),
        Some(time) if time % 1_000_000 != 0 => refuse(field, "must be whole milliseconds", report),
        Some(time) => match u32::try_from(time / 1_000_000).ok() {
            Some(ms) if range.contains(&ms) => Some(Some(Duration::from_millis(ms.into()))),
            _ => {
                let (from, to) = (shown(range.start()), shown(range.end()));
                refuse(field, format!("must be from {from} to {to}"), report)
            }
        },
    }
}

/// A time as Go writes it, without a sign: numbers, each with its unit. Exact, or `None`.
fn nanoseconds(text: &str) -> Option<u128> {
    const UNITS: [(&str, u128); 7] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    let (mut rest, mut sum) = (text, 0u128);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(end);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(times(number, *unit)?)?;
        rest = after;
    }
    Some(sum)
}

/// A decimal number of units; `None` if that is no whole number of nanoseconds.
fn times(number: &str, unit: u128) -> Option<u128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || part.len() > 18 {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let mut sum = whole.checked_mul(unit)?;
    if !part.is_empty() {
        let scale = 10u128.checked_pow(u32::try_from(part.len()).ok()?)?;
        let scaled = part.parse::<u128>().ok()?.checked_mul(unit)?;
        if scaled % scale != 0 {
            return None;
        }
        sum = sum.checked_add(scaled / scale)?;
    }
    Some(sum)
}

/// Hundredths, with up to four decimals, as parts per million.
pub(super) fn share(field: &Field<'_>, report: &mut Report) -> Option<Option<u32>> {
    let percent = match field.value() {
        None => return Some(None),
        #[expect(clippy::cast_precision_loss, reason = "only small numbers are kept")]
        Some(Value::Int(number)) => *number as f64,
        Some(Value::Float(number)) => *number,
        Some(_) => f64::NAN,
    };
    let ppm = (percent * 10_000.0).round();
    if !(0.0..=f64::from(MILLION)).contains(&ppm) || (ppm / 10_000.0 - percent).abs() > 1e-9 {
        let message = "must be a number from 0 to 100 with at most four decimals";
        return refuse(field, message, report);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and from 0 to a million"
    )]
    Some(Some(ppm as u32))
}

/// True or false.
pub(super) fn flag(field: &Field<'_>, report: &mut Report) -> Option<Option<bool>> {
    match field.value() {
        None => Some(None),
        Some(Value::Bool(flag)) => Some(Some(*flag)),
        Some(_) => refuse(field, "must be true or false", report),
    }
}

/// One of some words; its index.
pub(super) fn word(
    field: &Field<'_>,
    words: &[&str],
    report: &mut Report,
) -> Option<Option<usize>> {
    let Some(text) = field.text_if_any(report)? else {
        return Some(None);
    };
    match words.iter().position(|word| *word == text) {
        Some(index) => Some(Some(index)),
        None => refuse(field, format!("must be {}", words.join(" or ")), report),
    }
}

/// The name of a Service.
pub(super) fn service<'a>(field: &Field<'a>, report: &mut Report) -> Option<&'a str> {
    let name = field.name(report)?;
    if crate::manifest::report::is_label(name) && name.len() <= 63 {
        return Some(name);
    }
    let message = format!("{} is not the name of a Service", short(name));
    report.error(field, message);
    None
}

/// One entry of a list of HTTP statuses.
pub(super) fn statuses(field: &Field<'_>, report: &mut Report) -> Option<(u16, u16)> {
    let range = match field.value() {
        Some(Value::Int(number)) => u16::try_from(*number).ok().map(|number| (number, number)),
        Some(Value::Text(text)) => status_range(text),
        _ => None,
    };
    let known = |status: u16| bounds::STATUS.contains(&u32::from(status));
    match range.filter(|(from, to)| known(*from) && known(*to) && from <= to) {
        Some(range) => Some(range),
        None => refuse(
            field,
            "must be a status from 200 to 599, \"5xx\" or \"500-504\"",
            report,
        ),
    }
}

fn status_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok())?
    };
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| *class < 10)?;
        return Some((class * 100, class * 100 + 99));
    }
    match text.split_once('-') {
        Some((from, to)) => Some((number(from)?, number(to)?)),
        None => number(text).map(|number| (number, number)),
    }
}

/// A gRPC code that is a failure, by name or number.
pub(super) fn code(field: &Field<'_>, report: &mut Report) -> Option<Option<u8>> {
    let code = match field.value() {
        None => return Some(None),
        Some(Value::Int(number)) => u8::try_from(*number).ok(),
        Some(Value::Text(text)) => named_code(text),
        Some(_) => None,
    };
    match code.filter(|code| bounds::GRPC_CODE.contains(&u32::from(*code))) {
        Some(code) => Some(Some(code)),
        None => refuse(
            field,
            format!(
                "must be a gRPC code from 1 to 16 or its name: {}",
                CODES.join(", ")
            ),
            report,
        ),
    }
}

/// As gRPC writes them (`DATA_LOSS`), or as YAML is written (`data-loss`).
fn named_code(text: &str) -> Option<u8> {
    let text = text.to_ascii_lowercase().replace('_', "-");
    let index = CODES.iter().position(|code| *code == text)?;
    u8::try_from(index + 1).ok()
}

/// Reports what should be there instead of what is.
pub(super) fn refuse<T>(
    field: &Field<'_>,
    message: impl std::fmt::Display,
    report: &mut Report,
) -> Option<T> {
    let found = field.value().map(Value::describe);
    let found = found.map_or(String::new(), |found| format!(", not {found}"));
    report.error(field, format!("{message}{found}"));
    None
}
