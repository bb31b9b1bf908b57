//! What was done with each object, as lines for people.

use super::values::printable;
use std::fmt;

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// 1-based line of the object (or mistake) in the text.
    pub line: usize,
    /// `deployment "web"`; nothing where the text as a whole is meant.
    pub object: Option<String>,
    /// What happened.
    pub outcome: Outcome,
}

/// What happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The sidecar was put in.
    Injected,
    /// The sidecar was taken out.
    Uninjected,
    /// Left as it was, with a reason unless the kind of object says it all.
    Skipped(Option<String>),
    /// Something to know.
    Warning(String),
    /// Left as it was because something is wrong.
    Error(String),
}

impl Line {
    /// Is it a mistake?
    pub fn is_error(&self) -> bool {
        matches!(self.outcome, Outcome::Error(_))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Outcome::Warning(_) | Outcome::Error(_) = self.outcome {
            f.write_str(if self.is_error() {
                "error: "
            } else {
                "warning: "
            })?;
            write!(f, "line {}: ", self.line)?;
        }
        match (&self.object, &self.outcome) {
            (Some(object), Outcome::Injected) => write!(f, "{object} injected"),
            (Some(object), Outcome::Uninjected) => write!(f, "{object} uninjected"),
            (Some(object), Outcome::Skipped(None)) => write!(f, "{object} skipped"),
            (Some(object), Outcome::Skipped(Some(why))) => write!(f, "{object} skipped: {why}"),
            (Some(object), Outcome::Warning(what) | Outcome::Error(what)) => {
                write!(f, "{object}: {what}")
            }
            (None, Outcome::Warning(what) | Outcome::Error(what)) => f.write_str(what),
            (None, _) => f.write_str("document skipped"),
        }
    }
}

/// `deployment "web"`.
pub(super) fn title(kind: &str, name: Option<&str>) -> String {
    let name = name.map_or_else(
        || "(no name)".to_owned(),
        |name| format!("\"{}\"", printable(name)),
    );
    format!("{} {name}", printable(&kind.to_lowercase()))
}
