//! The table of strings of a message, and the bounds that keep a small message from becoming a huge value.

use super::{DecodeError, malformed, missing};
use std::cell::Cell;
use std::fmt;

/// Longest string accepted, bytes: twice the longest pattern.
pub(super) const MAX_STRING: usize = 8192;
/// How many bytes of text one response may unfold to: references are short, what they name is not.
const MAX_TEXT: usize = 64 << 20;

/// The strings of one response.
pub(super) struct Strings<'a> {
    list: &'a [String],
    left: Cell<usize>,
}

impl<'a> Strings<'a> {
    pub(super) fn new(list: &'a [String]) -> Self {
        Self {
            list,
            left: Cell::new(MAX_TEXT),
        }
    }

    /// The string of a reference; `None` for 0.
    pub(super) fn get(
        &self,
        field: impl fmt::Display,
        reference: u32,
    ) -> Result<Option<&'a str>, DecodeError> {
        let Some(index) = reference.checked_sub(1) else {
            return Ok(None);
        };
        let text = usize::try_from(index)
            .ok()
            .and_then(|index| self.list.get(index));
        match text {
            None => Err(malformed(
                field,
                format!("reference {reference} of {} strings", self.list.len()),
            )),
            Some(text) if text.len() > MAX_STRING => Err(malformed(
                field,
                format!(
                    "{} bytes of text; at most {MAX_STRING} are accepted",
                    text.len()
                ),
            )),
            Some(text) => self.charge(field, text).map(Some),
        }
    }

    /// The string of a reference that must not be 0.
    pub(super) fn required(
        &self,
        field: impl fmt::Display,
        reference: u32,
    ) -> Result<String, DecodeError> {
        match self.get(&field, reference)? {
            Some(text) => Ok(text.to_owned()),
            None => Err(missing(field)),
        }
    }

    /// The string of a reference, empty for 0.
    pub(super) fn optional(
        &self,
        field: impl fmt::Display,
        reference: u32,
    ) -> Result<String, DecodeError> {
        Ok(self.get(field, reference)?.unwrap_or_default().to_owned())
    }

    fn charge(&self, field: impl fmt::Display, text: &'a str) -> Result<&'a str, DecodeError> {
        match self.left.get().checked_sub(text.len()) {
            Some(left) => {
                self.left.set(left);
                Ok(text)
            }
            None => Err(malformed(field, "the response unfolds to too much text")),
        }
    }
}
