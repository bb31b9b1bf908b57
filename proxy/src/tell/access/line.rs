//! One line. Whatever a client may have written is escaped: a line stays one line, and a field one field.

use super::Form;
use crate::http::body::End;
use crate::tell::context::hex;
use crate::tell::{Story, cut, text};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// In place of a query that is not shown.
const HIDDEN: &str = "-";

pub(super) fn write(out: &mut Vec<u8>, story: &Story, form: Form, query: bool) {
    // Writing into memory does not fail.
    let _ = match form {
        Form::Common => common(out, story, query),
        Form::Json => json(out, story, query),
    };
    out.push(b'\n');
}

/// `client - identity [time] "request" status bytes`, and then what is not in the old format, by name.
fn common(out: &mut Vec<u8>, story: &Story, query: bool) -> std::io::Result<()> {
    let (place, ending) = (&story.place, story.ending());
    match place.client {
        Some(client) => write!(out, "{}", client.ip())?,
        None => write!(out, "-")?,
    }
    let identity = place.identity.as_deref().unwrap_or("-");
    write!(out, " - {identity} [{}] \"", clf_time(story.at))?;
    let method = cut(story.method.as_str());
    write!(out, "{method} {}", escaped(story.uri.path()))?;
    if let Some(said) = story.uri.query() {
        write!(out, "?{}", escaped(if query { said } else { HIDDEN }))?;
    }
    write!(
        out,
        " {:?}\" {} {} {:.3}ms {} {} \"{}\" \"{}\" {}",
        story.version,
        story.status,
        ending.bytes,
        ending.took.as_secs_f64() * 1000.0,
        place.direction.label(),
        place.target,
        escaped(story.host()),
        escaped(text(story.agent.as_ref())),
        body(ending.body)
    )?;
    if let Some(service) = &place.service {
        write!(out, " service={service}")?;
    }
    if let Some(error) = &story.error {
        write!(out, " error=\"{}\"", escaped(text(Some(error))))?;
    }
    if let Some(grpc) = ending.grpc {
        write!(out, " grpc={grpc}")?;
    }
    if let Some(span) = &story.span {
        write!(out, " trace={}", hex(&span.context.trace))?;
    }
    Ok(())
}

fn json(out: &mut Vec<u8>, story: &Story, query: bool) -> std::io::Result<()> {
    let (place, ending) = (&story.place, story.ending());
    let mut fields = serde_json::Map::new();
    let mut put = |name: &str, value: serde_json::Value| {
        fields.insert(name.to_owned(), value);
    };
    put("time", iso_time(story.at).into());
    put("direction", place.direction.label().into());
    if let Some(client) = place.client {
        put("client", client.to_string().into());
    }
    if let Some(identity) = &place.identity {
        put("identity", (**identity).into());
    }
    put("target", place.target.to_string().into());
    if let Some(service) = &place.service {
        put("service", (**service).into());
    }
    put("method", cut(story.method.as_str()).into());
    put("host", cut(story.host()).into());
    put("path", cut(story.uri.path()).into());
    if let Some(said) = story.uri.query() {
        put("query", cut(if query { said } else { HIDDEN }).into());
    }
    put("protocol", format!("{:?}", story.version).into());
    put("status", story.status.into());
    put("bytes", ending.bytes.into());
    let micros = u64::try_from(ending.took.as_micros()).unwrap_or(u64::MAX);
    put("duration_us", micros.into());
    put("ended", body(ending.body).into());
    if let Some(grpc) = ending.grpc {
        put("grpc_status", grpc.into());
    }
    if let Some(error) = &story.error {
        put("error", cut(text(Some(error))).into());
    }
    if let Some(agent) = &story.agent {
        put("user_agent", cut(text(Some(agent))).into());
    }
    if let Some(span) = &story.span {
        put("trace_id", hex(&span.context.trace).into());
        put("span_id", hex(&span.id).into());
    }
    Ok(serde_json::to_writer(out, &fields)?)
}

fn body(end: Option<End>) -> &'static str {
    match end {
        Some(End::Complete) => "complete",
        Some(End::Broken) => "broken",
        Some(End::Dropped) => "dropped",
        Some(End::Late) => "late",
        None => "unanswered",
    }
}

/// Quotes, backslashes and what does not print as `\xHH`.
fn escaped(text: &str) -> String {
    let text = cut(text);
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' | b' ' if byte != b'"' && byte != b'\\' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("\\x{byte:02x}")),
        }
    }
    escaped
}

fn utc(at: SystemTime) -> OffsetDateTime {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    OffsetDateTime::UNIX_EPOCH + since
}

fn clf_time(at: SystemTime) -> String {
    let at = utc(at);
    let month = &at.month().to_string()[..3];
    format!(
        "{:02}/{month}/{}:{:02}:{:02}:{:02} +0000",
        at.day(),
        at.year(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

fn iso_time(at: SystemTime) -> String {
    let at = utc(at);
    format!(
        "{}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.microsecond()
    )
}
