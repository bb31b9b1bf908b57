//! What is refused in the head of an HTTP/1 request because two programs could read it differently, or because it is too
//! much: nothing is repaired. Pure.

pub(super) mod line;

/// Fields of a head, or of trailers.
pub const MAX_FIELDS: usize = 99;
/// Bytes of a head, or of trailers, their line ends included. RFC 9112 section 3 asks for 8000 in the first line alone.
pub const MAX_HEAD: usize = 64 * 1024;
/// Bytes of one line.
pub(super) const MAX_LINE: usize = 32 * 1024;

/// Why a request is refused. Travels with it, as an extension, to the layer that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A line ends without CR.
    BareLf,
    /// A field goes on in the next line.
    Folded,
    /// Something between the name of a field and its colon, no colon at all, or no name.
    FieldName,
    /// A control character in the value of a field.
    FieldValue,
    /// Content-Length and Transfer-Encoding.
    TwoFramings,
    /// More than one Content-Length.
    TwoLengths,
    /// A Content-Length that is not a number.
    Length,
    /// A Transfer-Encoding other than one `chunked`, or in HTTP/1.0.
    Encoding,
    /// The first line names HTTP and is no request.
    StartLine,
    /// The target has no form that a request may have.
    Target,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// Not HTTP at all.
    NotHttp,
    /// Too many bytes or fields.
    TooLarge,
    /// The head took too long.
    Late,
}

impl Refusal {
    /// A sentence for the client.
    pub fn explain(self) -> &'static str {
        match self {
            Refusal::BareLf => "a line of the head ends without CR",
            Refusal::Folded => "a header field is folded over several lines",
            Refusal::FieldName => "a header field has no proper name",
            Refusal::FieldValue => "a header field has a control character in its value",
            Refusal::TwoFramings => "both Content-Length and Transfer-Encoding",
            Refusal::TwoLengths => "more than one Content-Length",
            Refusal::Length => "Content-Length is not a number",
            Refusal::Encoding => "Transfer-Encoding is something else than one `chunked`",
            Refusal::StartLine => "the first line is not a method, a target and a version",
            Refusal::Target => {
                "the target is not a path or address, or has bytes that must be escaped"
            }
            Refusal::Version => "the version is neither HTTP/1.0 nor HTTP/1.1",
            Refusal::NotHttp => "the first line is not that of an HTTP request",
            Refusal::TooLarge => "the head has too many bytes or fields, or too long a line",
            Refusal::Late => "the head was not finished in time",
        }
    }
}
