//! Text for terminals.

use std::fmt::Write;

/// What others wrote must not steer a terminal: control characters are shown, not sent.
pub fn plain(text: &str) -> String {
    text.chars().fold(String::new(), |mut plain, letter| {
        match letter.is_control() {
            true => drop(write!(plain, "{}", letter.escape_default())),
            false => plain.push(letter),
        }
        plain
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_is_shown() {
        assert_eq!(plain("a\u{1b}[2J\r\u{9b}é"), "a\\u{1b}[2J\\r\\u{9b}é");
    }
}
