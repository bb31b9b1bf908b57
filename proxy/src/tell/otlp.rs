//! The part of the OpenTelemetry protocol (OTLP 1, `opentelemetry/proto/trace/v1/trace.proto` and what it imports) that a
//! span needs. Numbers of fields are theirs.

use prost::{Message, Oneof};

/// Where a batch is sent.
pub const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A batch.
#[derive(Clone, PartialEq, Message)]
pub struct ExportTraceServiceRequest {
    /// By who made the spans; always one here.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// Spans of one process.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// By library; always one here.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

/// Who made the spans.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// `service.name` and so on.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// Spans of one library.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<InstrumentationScope>,
    /// Its spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

/// A library.
#[derive(Clone, PartialEq, Message)]
pub struct InstrumentationScope {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// One exchange, seen from one place.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// `tracestate`.
    #[prost(string, tag = "3")]
    pub trace_state: String,
    /// 8 bytes; empty: the first one.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// The method.
    #[prost(string, tag = "5")]
    pub name: String,
    /// [`SERVER`] or [`CLIENT`].
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// What is known of it.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// How it went; absent: well.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// W3C flags.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// A request that came to an application.
pub const SERVER: i32 = 2;
/// A request that an application made.
pub const CLIENT: i32 = 3;

/// How a span went.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// What went wrong.
    #[prost(string, tag = "2")]
    pub message: String,
    /// [`FAILED`].
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// It went wrong.
pub const FAILED: i32 = 2;

/// A name and its value.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Name, by OpenTelemetry's conventions.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// A value.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// Of one kind.
    #[prost(oneof = "Value", tags = "1, 3")]
    pub value: Option<Value>,
}

/// The kinds used here.
#[derive(Clone, PartialEq, Oneof)]
pub enum Value {
    /// Text.
    #[prost(string, tag = "1")]
    Text(String),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// What a collector answers.
#[derive(Clone, PartialEq, Message)]
pub struct ExportTraceServiceResponse {
    /// What it did not take.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// What a collector did not take.
#[derive(Clone, PartialEq, Message)]
pub struct PartialSuccess {
    /// How many spans.
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
}

/// A pair with a text.
pub fn pair(key: &str, value: impl Into<String>) -> KeyValue {
    let value = Some(Value::Text(value.into()));
    let value = Some(AnyValue { value });
    KeyValue {
        key: key.to_owned(),
        value,
    }
}

/// A pair with a number.
pub fn number(key: &str, value: impl Into<i64>) -> KeyValue {
    let value = Some(Value::Number(value.into()));
    let value = Some(AnyValue { value });
    KeyValue {
        key: key.to_owned(),
        value,
    }
}
