//! Where a request stands in a trace: W3C Trace Context (`traceparent`) and B3, in one header or in several. Pure.
//!
//! Of a request that is traced each hop makes a span of its own and tells the next one that this is its parent, in
//! whatever forms it was told. A request that is not traced keeps its fields as they are.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Identifies a trace.
pub type TraceId = [u8; 16];
/// Identifies a span in it.
pub type SpanId = [u8; 8];

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// State of tracing systems, beside `traceparent`.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// What a request says about its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span; `None`: this is the first one.
    pub parent: Option<SpanId>,
    /// Is it traced?
    pub sampled: bool,
}

/// What a request says; `None`: nothing, or nothing that can be understood.
pub fn read(fields: &HeaderMap) -> Option<Context> {
    w3c(fields)
        .or_else(|| b3_single(fields))
        .or_else(|| b3_multi(fields))
}

/// Does it say anything at all about a trace? Of one that only says "no" there is nothing to begin.
pub fn mentioned(fields: &HeaderMap) -> bool {
    [B3, B3_SAMPLED, B3_FLAGS]
        .iter()
        .any(|name| fields.contains_key(name))
        || read(fields).is_some()
}

/// Makes `span` the parent of whatever comes next, in every form the request has; in W3C's where it has none.
pub fn write(fields: &mut HeaderMap, context: &Context, span: &SpanId) {
    let same = |other: Option<Context>| other.is_some_and(|other| other.trace == context.trace);
    let (single, multi) = (same(b3_single(fields)), same(b3_multi(fields)));
    let had_w3c = w3c(fields).is_some();
    if had_w3c || !(single || multi) {
        let value = format!("00-{}-{}-01", hex(&context.trace), hex(span));
        if !had_w3c {
            // Belongs to a parent that there is not.
            fields.remove(TRACESTATE);
        }
        put(fields, TRACEPARENT, &value);
    }
    let parent = context.parent.map(|parent| hex(&parent));
    if single {
        // The trace as it came: it may be half as long.
        let came = fields.get(B3).and_then(|value| value.to_str().ok());
        let mut parts = came.unwrap_or_default().split('-');
        let (trace, flag) = (
            parts.next().unwrap_or_default(),
            parts.nth(1).unwrap_or("1"),
        );
        let mut value = format!("{trace}-{}-{flag}", hex(span));
        if let Some(parent) = &parent {
            value = format!("{value}-{parent}");
        }
        put(fields, B3, &value);
    }
    if multi {
        put(fields, B3_SPAN, &hex(span));
        if let Some(parent) = &parent {
            put(fields, B3_PARENT, parent);
        }
    }
}

fn put(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.insert(name, value);
    }
}

/// The only value of a field.
fn one(fields: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = fields.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| value.trim())
}

/// `version-trace-parent-flags`. Later versions may add more, behind another dash.
fn w3c(fields: &HeaderMap) -> Option<Context> {
    let value = one(fields, TRACEPARENT)?;
    let mut parts = value.splitn(5, '-');
    let version: [u8; 1] = unhex(parts.next()?)?;
    let (trace, parent) = (unhex(parts.next()?)?, unhex(parts.next()?)?);
    let flags: [u8; 1] = unhex(parts.next()?)?;
    let known = match version[0] {
        0xff => false,
        0 => parts.next().is_none(),
        _ => true,
    };
    if !known || value.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    context(trace, parent, flags[0] & 1 == 1)
}

/// `trace-span-flag-parent`; the last two may be missing.
fn b3_single(fields: &HeaderMap) -> Option<Context> {
    let mut parts = one(fields, B3)?.split('-');
    let (trace, span) = (b3_trace(parts.next()?)?, unhex(parts.next()?)?);
    let sampled = matches!(parts.next(), Some("1" | "d"));
    context(trace, span, sampled)
}

fn b3_multi(fields: &HeaderMap) -> Option<Context> {
    let (trace, span) = (one(fields, B3_TRACE)?, one(fields, B3_SPAN)?);
    let sampled =
        matches!(one(fields, B3_SAMPLED), Some("1" | "true")) || one(fields, B3_FLAGS) == Some("1");
    context(b3_trace(trace)?, unhex(span)?, sampled)
}

fn context(trace: TraceId, parent: SpanId, sampled: bool) -> Option<Context> {
    let real = trace != [0; 16] && parent != [0; 8];
    let parent = Some(parent);
    real.then_some(Context {
        trace,
        parent,
        sampled,
    })
}

/// Old traces are half as long.
fn b3_trace(text: &str) -> Option<TraceId> {
    unhex(text).or_else(|| {
        let half: [u8; 8] = unhex(text)?;
        let mut trace = [0; 16];
        trace[8..].copy_from_slice(&half);
        Some(trace)
    })
}

/// Hexadecimal digits, two for each byte.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |at: u8| char::from_digit(at.into(), 16).unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn fields(of: &[(&str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in of {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
                fields.append(name, value);
            }
        }
        fields
    }

    #[test]
    fn every_form_is_understood_and_nonsense_is_not() {
        let w3c = |rest: &str| format!("00-{TRACE}-{SPAN}-{rest}");
        let yes = [
            vec![("traceparent", w3c("01"))],
            vec![("traceparent", w3c("03"))],
            vec![("traceparent", format!("42-{TRACE}-{SPAN}-01-more"))],
            vec![("b3", format!("{TRACE}-{SPAN}-1"))],
            vec![("b3", format!("{TRACE}-{SPAN}-d-{SPAN}"))],
            vec![
                ("x-b3-traceid", TRACE.to_owned()),
                ("x-b3-spanid", SPAN.to_owned()),
                ("x-b3-sampled", "1".to_owned()),
            ],
        ];
        let no = [
            vec![("traceparent", w3c("00"))],
            vec![("b3", format!("{TRACE}-{SPAN}-0"))],
            vec![("b3", format!("{TRACE}-{SPAN}"))],
        ];
        let nothing = [
            vec![],
            vec![("traceparent", w3c("01-more"))],
            vec![("traceparent", w3c("1"))],
            vec![("traceparent", format!("ff-{TRACE}-{SPAN}-01"))],
            vec![("traceparent", w3c("01").to_uppercase())],
            vec![("traceparent", format!("00-{}-{SPAN}-01", "0".repeat(32)))],
            vec![("traceparent", format!("00-{TRACE}-{}-01", "0".repeat(16)))],
            vec![("traceparent", w3c("01")), ("traceparent", w3c("01"))],
            vec![("traceparent", "é".repeat(28))],
            vec![("b3", "0".to_owned())],
            vec![("b3", format!("{TRACE}x-{SPAN}-1"))],
            vec![("x-b3-traceid", TRACE.to_owned())],
        ];
        let read_of = |rows: &Vec<(&str, String)>| {
            let rows: Vec<_> = rows.iter().map(|(k, v)| (*k, v.as_str())).collect();
            read(&fields(&rows))
        };
        for row in &yes {
            let found = read_of(row);
            assert!(
                found.is_some_and(|found| found.sampled
                    && hex(&found.trace) == TRACE
                    && found.parent.map(|parent| hex(&parent)).as_deref() == Some(SPAN)),
                "{row:?}: {found:?}"
            );
        }
        for row in &no {
            assert!(read_of(row).is_some_and(|found| !found.sampled), "{row:?}");
        }
        for row in &nothing {
            assert_eq!(read_of(row), None, "{row:?}");
        }
        assert!(mentioned(&fields(&[("b3", "0")])));
        assert!(!mentioned(&fields(&[("traceparent", "x")])));
    }

    #[test]
    fn the_next_hop_is_told_in_the_forms_we_were_told() {
        let next = [0x11; 8];
        let told = |rows: &[(&str, &str)]| {
            let mut fields = fields(rows);
            let first = Context {
                trace: unhex(TRACE).unwrap_or_default(),
                parent: None,
                sampled: true,
            };
            let context = read(&fields).unwrap_or(first);
            write(&mut fields, &context, &next);
            let mut told: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?")))
                .collect();
            told.sort();
            told
        };
        let span = "1111111111111111";
        let traceparent = format!("traceparent: 00-{TRACE}-{span}-01");
        assert_eq!(told(&[]), [traceparent.as_str()]);
        let w3c = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(
            told(&[("traceparent", &w3c), ("tracestate", "a=1")]),
            [traceparent.as_str(), "tracestate: a=1"]
        );
        // State without its parent means nothing.
        assert_eq!(
            told(&[("traceparent", "?"), ("tracestate", "a=1")]),
            [traceparent.as_str()]
        );
        let half = &TRACE[16..];
        assert_eq!(
            told(&[("b3", &format!("{half}-{SPAN}-d"))]),
            [format!("b3: {half}-{span}-d-{SPAN}")]
        );
        assert_eq!(
            told(&[
                ("x-b3-traceid", TRACE),
                ("x-b3-spanid", SPAN),
                ("x-b3-flags", "1"),
                ("traceparent", &w3c)
            ]),
            [
                traceparent.clone(),
                "x-b3-flags: 1".to_owned(),
                format!("x-b3-parentspanid: {SPAN}"),
                format!("x-b3-spanid: {span}"),
                format!("x-b3-traceid: {TRACE}"),
            ]
        );
        // Another trace in another form is somebody else's.
        let other = format!("{}-{SPAN}-1", "a".repeat(32));
        assert_eq!(
            told(&[("traceparent", &w3c), ("b3", &other)]),
            [format!("b3: {other}"), traceparent]
        );
    }
}
