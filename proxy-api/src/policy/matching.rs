//! Does this request fit? Patterns are compiled once, by a linear-time engine, and always anchored inside the pattern
//! (a leftmost-first engine would otherwise find `/x` in `/xy` and stop there).

use regex::{Regex, RegexBuilder};

#[cfg(test)]
mod tests;

/// Longest pattern accepted, bytes.
pub const MAX_PATTERN: usize = 4096;
/// Largest compiled pattern accepted, bytes.
pub const MAX_COMPILED: usize = 1 << 20;
/// Memory that matching one pattern may use for its cache, bytes.
const MAX_CACHE: usize = 1 << 18;
/// Deepest nesting of groups accepted: parsing is recursive.
const MAX_NESTING: u32 = 64;

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
    /// `^(?:source)`: a literal or `literal.*` is lowered to [`TextMatch::Prefix`], `literal$` to
    /// [`TextMatch::Exact`]. The raw source is compiled alone first, so that it cannot break out of the wrapping.
    pub fn regex_prefix(source: &str) -> Result<Self, PatternError> {
        check_length(source)?;
        let body = source.strip_prefix('^').unwrap_or(source);
        if let Some(text) = literal(body.strip_suffix(".*").unwrap_or(body)) {
            return Ok(Self::Prefix(text));
        }
        if let Some(text) = body.strip_suffix('$').and_then(literal) {
            return Ok(Self::Exact(text));
        }
        Ok(Self::RegexPrefix(Pattern::compile(
            source,
            &format!("^(?:{source})"),
        )?))
    }

    /// `^(?:source)$`: a literal is lowered to [`TextMatch::Exact`].
    pub fn regex_full(source: &str) -> Result<Self, PatternError> {
        check_length(source)?;
        let body = source.strip_prefix('^').unwrap_or(source);
        if let Some(text) = literal(body.strip_suffix('$').unwrap_or(body)) {
            return Ok(Self::Exact(text));
        }
        Ok(Self::RegexFull(Pattern::compile(
            source,
            &format!("^(?:{source})$"),
        )?))
    }

    /// Does it take at most so many bytes, compiled? What is no pattern takes none.
    pub fn compiles_within(&self, bytes: usize) -> bool {
        let wrapped = match self {
            Self::Exact(_) | Self::Prefix(_) => return true,
            Self::RegexPrefix(pattern) => format!("^(?:{})", pattern.source),
            Self::RegexFull(pattern) => format!("^(?:{})$", pattern.source),
        };
        build(&wrapped, bytes).is_ok()
    }

    /// Does `text` fit?
    pub fn fits(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::RegexPrefix(pattern) | Self::RegexFull(pattern) => pattern.is_match(text),
        }
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

    /// `/a)|(?:.*` compiles only when wrapped, and would then be anchored nowhere: so first without.
    fn compile(source: &str, wrapped: &str) -> Result<Self, PatternError> {
        build(source, MAX_COMPILED)?;
        let regex = build(wrapped, MAX_COMPILED)?;
        Ok(Self {
            source: source.to_owned(),
            regex,
        })
    }
}

impl HttpMatch {
    /// Does the request fit?
    pub fn fits(&self, request: &RequestView<'_>) -> bool {
        self.fits_method(request)
            && self
                .path
                .as_ref()
                .is_none_or(|path| path.fits(request.path))
            && self.headers.iter().all(|header| header.fits(request))
    }

    /// Does TLS to this server fit, of which nothing else can be read? Only a match about nothing but `host` can.
    pub fn fits_server(&self, server: &str) -> bool {
        let about_host = self.path.is_none() && self.methods.is_empty() && !self.headers.is_empty();
        about_host
            && self
                .headers
                .iter()
                .all(|header| header.name == "host" && header.value.fits(server))
    }

    pub(super) fn fits_method(&self, request: &RequestView<'_>) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|method| method == request.method)
    }
}

impl HeaderMatch {
    pub(super) fn fits(&self, request: &RequestView<'_>) -> bool {
        let is_authority = self.name == "host" && !request.host.is_empty();
        (is_authority && self.value.fits(request.host))
            || request
                .headers
                .get_all(self.name.as_str())
                .iter()
                // A value that is not text fits no pattern.
                .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
                .any(|value| self.value.fits(value))
    }
}

fn check_length(source: &str) -> Result<(), PatternError> {
    match source.len() {
        length if length > MAX_PATTERN => Err(PatternError::TooLong(length)),
        _ => Ok(()),
    }
}

fn build(pattern: &str, most: usize) -> Result<Regex, PatternError> {
    RegexBuilder::new(pattern)
        .size_limit(most)
        .dfa_size_limit(MAX_CACHE)
        .nest_limit(MAX_NESTING)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => PatternError::TooBig,
            other => PatternError::Syntax(other.to_string()),
        })
}

/// The text a pattern stands for, if it stands for one text only: no operator, or each one escaped.
fn literal(pattern: &str) -> Option<String> {
    let mut text = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            // Escaped letters and digits are classes; escaped `<` and `>` are word boundaries.
            '\\' => text.push(
                characters
                    .next()
                    .filter(|c| r"\.+*?()|[]{}^$/-".contains(*c))?,
            ),
            _ if ".+*?()|[]{}^$".contains(character) => return None,
            _ => text.push(character),
        }
    }
    Some(text)
}
