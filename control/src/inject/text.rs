//! Lines, indentation and edits of a text, with whatever line ends it has.

use std::ops::Range;

/// Replaces a range of the text; an insertion where the range is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    /// What is replaced.
    pub range: Range<usize>,
    /// By what.
    pub text: String,
}

/// Applies edits that do not overlap; `offset` is where `text` starts in what the ranges count in.
pub(super) fn apply(text: &str, offset: usize, edits: &[Edit]) -> Option<String> {
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let mut result =
        String::with_capacity(text.len() + edits.iter().map(|e| e.text.len()).sum::<usize>());
    let mut done = 0;
    for edit in edits {
        let start = edit.range.start.checked_sub(offset)?;
        result.push_str(text.get(done..start)?);
        result.push_str(&edit.text);
        done = edit.range.end.checked_sub(offset)?;
    }
    result.push_str(text.get(done..)?);
    Some(result)
}

/// End of the line of `at`, in front of its line break.
pub(super) fn line_end(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let end = rest.find('\n').unwrap_or(rest.len());
    let end = if rest[..end].ends_with('\r') && end < rest.len() {
        end - 1
    } else {
        end
    };
    at + end
}

/// Start of the line of `at`.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// End of the line before the one of `at`, in front of its line break; the start of the text if there is none.
pub(super) fn previous_line_end(text: &str, at: usize) -> usize {
    let start = line_start(text, at);
    let before = &text[..start];
    before
        .strip_suffix("\r\n")
        .or_else(|| before.strip_suffix('\n'))
        .unwrap_or(before)
        .len()
}

/// The line break of the line of `at`; at the end of the text, of the line before.
pub(super) fn newline(text: &str, at: usize) -> &'static str {
    let end = line_end(text, at);
    let own = &text[end..];
    match own.starts_with("\r\n")
        || (own.is_empty() && text[..line_start(text, at)].ends_with("\r\n"))
    {
        true => "\r\n",
        false => "\n",
    }
}

/// Column of `at`, if nothing but blanks and dashes stands before it.
pub(super) fn column(text: &str, at: usize) -> Option<usize> {
    let before = &text[line_start(text, at)..at];
    before
        .bytes()
        .all(|b| b == b' ' || b == b'-')
        .then_some(before.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "ab\r\n cd\ne";
        assert_eq!(
            (line_end(text, 0), line_end(text, 5), line_end(text, 8)),
            (2, 7, 9)
        );
        assert_eq!(
            (
                line_start(text, 6),
                line_start(text, 1),
                previous_line_end(text, 6),
                previous_line_end(text, 8)
            ),
            (4, 0, 2, 7)
        );
        assert_eq!(
            (newline(text, 0), newline(text, 5), newline(text, 8)),
            ("\r\n", "\n", "\n")
        );
        assert_eq!(newline("a\r\nb", 3), "\r\n");
        assert_eq!(
            (column(text, 5), column(text, 6), column("  - a", 4)),
            (Some(1), None, Some(4))
        );
    }

    #[test]
    fn edits() {
        let edit = |range, text: &str| Edit {
            range,
            text: text.to_owned(),
        };
        let edits = [edit(14..14, "!"), edit(10..11, "")];
        assert_eq!(apply("abcdef", 10, &edits).as_deref(), Some("bcd!ef"));
        assert_eq!(apply("abc", 0, &[edit(0..2, ""), edit(1..3, "")]), None);
        assert_eq!(apply("abc", 5, &[edit(1..2, "")]), None);
    }
}
