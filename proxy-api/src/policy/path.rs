//! One canonical form of a path: what policy judges is what is forwarded.

use std::borrow::Cow;

/// Why a path has no canonical form that every parser would read alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A `%` without two hexadecimal digits.
    #[error("a percent sign is not followed by two hexadecimal digits")]
    BadEscape,
    /// NUL, escaped or not.
    #[error("the path contains a NUL")]
    Nul,
    /// An escaped slash or a backslash: parsers disagree about it.
    #[error("the path contains an escaped slash or a backslash")]
    EscapedSlash,
    /// `..` leads above the root.
    #[error("the path leads above the root")]
    AboveRoot,
}

/// The canonical form of the path of an origin-form target, without query (RFC 3986 section 6.2.2): unreserved
/// characters decoded, escapes in upper case, `.` and `..` (in any spelling) resolved, empty segments merged.
/// `*` and the empty path are returned as they are. Borrows when nothing had to change.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathError> {
    let _ = path;
    todo!()
}

/// The canonical form of an authority or Host: lower case, without port, userinfo refused (`None`), without trailing dot.
pub fn normalise_host(authority: &str) -> Option<Cow<'_, str>> {
    let _ = authority;
    todo!()
}
