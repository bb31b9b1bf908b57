//! Does this request fit? Patterns are compiled once, by a linear-time engine, and always anchored inside the pattern
//! (a leftmost-first engine would otherwise find `/x` in `/xy` and stop there).

use regex::Regex;

/// Longest pattern accepted, bytes.
pub const MAX_PATTERN: usize = 4096;
/// Largest compiled pattern accepted, bytes.
pub const MAX_COMPILED: usize = 1 << 20;

/// A request as matching sees it.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Method, as sent.
    pub method: &'a str,
    /// Normalised path without query ([`super::path::normalise`]): what is forwarded.
    pub path: &'a str,
    /// `:authority` or Host, lower case, without port and trailing dot; empty if absent.
    pub host: &'a str,
    /// Header fields.
    pub headers: &'a http::HeaderMap,
}

/// One match of an HTTPRouteGroup: everything that is present must fit.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpMatch {
    /// The object, e.g. `HTTPRouteGroup default/api`.
    pub object: String,
    /// Name of the match in its group.
    pub name: String,
    /// Path; `None`: any.
    pub path: Option<TextMatch>,
    /// Methods; empty: any.
    pub methods: Vec<String>,
    /// Headers; all must fit, each by any of its values.
    pub headers: Vec<HeaderMatch>,
}

/// One condition on a header field.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatch {
    /// Lower-case name; `host` also means `:authority`.
    pub name: String,
    /// Condition on a value; an absent field never fits.
    pub value: TextMatch,
}

/// A condition on a text.
#[derive(Debug, Clone)]
pub enum TextMatch {
    /// The same text.
    Exact(String),
    /// Starts with this text.
    Prefix(String),
    /// A regular expression anchored at the start and open at the end. Keeps the pattern as written.
    RegexPrefix(Pattern),
    /// A regular expression that must fit the whole text. Keeps the pattern as written.
    RegexFull(Pattern),
}

/// A compiled pattern and its source.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than [`MAX_PATTERN`].
    #[error("the pattern has {0} bytes; at most {MAX_PATTERN} are accepted")]
    TooLong(usize),
    /// Compiles to more than [`MAX_COMPILED`].
    #[error("the pattern compiles to more than {MAX_COMPILED} bytes; make it simpler")]
    TooBig,
    /// Not a regular expression of the RE2 family.
    #[error("not a regular expression: {0}")]
    Syntax(String),
}

impl TextMatch {
    /// `^(?:source)`: a literal or `literal.*` is lowered to [`TextMatch::Prefix`].
    /// The raw source is compiled alone first, so that it cannot break out of the wrapping.
    pub fn regex_prefix(source: &str) -> Result<Self, PatternError> {
        let _ = source;
        todo!()
    }

    /// `^(?:source)$`: a literal is lowered to [`TextMatch::Exact`].
    pub fn regex_full(source: &str) -> Result<Self, PatternError> {
        let _ = source;
        todo!()
    }

    /// Does `text` fit?
    pub fn fits(&self, text: &str) -> bool {
        let _ = text;
        todo!()
    }
}

impl PartialEq for TextMatch {
    fn eq(&self, other: &Self) -> bool {
        use TextMatch::*;
        match (self, other) {
            (Exact(a), Exact(b)) | (Prefix(a), Prefix(b)) => a == b,
            (RegexPrefix(a), RegexPrefix(b)) | (RegexFull(a), RegexFull(b)) => a.source == b.source,
            _ => false,
        }
    }
}

impl Pattern {
    /// The pattern as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Does `text` fit?
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl HttpMatch {
    /// Does the request fit?
    pub fn fits(&self, request: &RequestView<'_>) -> bool {
        let _ = request;
        todo!()
    }
}
