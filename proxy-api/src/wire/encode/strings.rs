//! The table of strings of a message, for policy one way and summaries the other.

use std::collections::HashMap;

/// The table while a message is built. A string has the index of its first use, counted from 1.
#[derive(Debug, Default)]
pub struct Strings {
    list: Vec<String>,
    index: HashMap<String, u32>,
}

impl Strings {
    /// The index of a text.
    pub fn intern(&mut self, text: &str) -> u32 {
        if let Some(index) = self.index.get(text) {
            return *index;
        }
        self.list.push(text.to_owned());
        // More than 2^32 strings are more than a message can hold.
        let index = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.index.insert(text.to_owned(), index);
        index
    }

    /// 0, "none", for the empty text.
    pub fn optional(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            0
        } else {
            self.intern(text)
        }
    }

    /// The table, as it travels.
    pub fn into_list(self) -> Vec<String> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_said_once() {
        let mut strings = Strings::default();
        let indices = ["a", "", "b", "a"].map(|text| strings.optional(text));
        assert_eq!(indices, [1, 0, 2, 1]);
        assert_eq!(strings.into_list(), ["a", "b"]);
    }
}
