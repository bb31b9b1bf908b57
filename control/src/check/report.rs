//! What came of the checks, and how it is shown: `√` all right, `‼` somebody should look, `×` it does not work.

use super::hints::remedy;
use crate::terminal::plain;
use serde_json::{Value, json};
use std::fmt;

/// Objects shown for one check.
const MAX_OBJECTS: usize = 10;

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// All right.
    Fine,
    /// It works, but somebody should look.
    Warning,
    /// It does not work.
    Failure,
}

/// A check, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name, in the table of hints.
    pub id: &'static str,
    /// What is so if all is well.
    pub description: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// What is wrong, in words.
    pub message: String,
    /// What it is wrong with.
    pub objects: Vec<String>,
}

/// Checks about one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// What they are about.
    pub name: &'static str,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

/// All checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they were made.
    pub sections: Vec<Section>,
}

impl Section {
    /// One without checks.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            checks: Vec::new(),
        }
    }

    /// Adds a check.
    pub fn add(&mut self, id: &'static str, description: &'static str, verdict: Verdict) {
        self.checks.push(Check {
            id,
            description,
            outcome: verdict.outcome,
            message: verdict.message,
            objects: verdict.objects,
        });
    }

    /// Could the API server be asked at all?
    pub(super) fn reachable(&self) -> bool {
        let first = self.checks.first();
        first.is_some_and(|check| check.outcome != Outcome::Failure)
    }
}

/// What came of a check, before it has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    outcome: Outcome,
    message: String,
    objects: Vec<String>,
}

impl Verdict {
    /// All right.
    pub fn fine() -> Self {
        Self {
            outcome: Outcome::Fine,
            message: String::new(),
            objects: Vec::new(),
        }
    }

    /// Somebody should look.
    pub fn warning(message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Warning,
            message: message.into(),
            objects: Vec::new(),
        }
    }

    /// It does not work.
    pub fn failure(message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Failure,
            ..Self::warning(message)
        }
    }

    /// With the objects that are meant.
    pub fn of(mut self, objects: Vec<String>) -> Self {
        self.objects = objects;
        self
    }

    /// Fine where no object is wrong.
    pub fn unless(objects: Vec<String>, otherwise: impl FnOnce() -> Self) -> Self {
        match objects.is_empty() {
            true => Self::fine(),
            false => otherwise().of(objects),
        }
    }
}

impl From<anyhow::Result<Verdict>> for Verdict {
    /// What could not be found out is a failure.
    fn from(result: anyhow::Result<Verdict>) -> Self {
        result.unwrap_or_else(|error| Self::failure(format!("{error:#}")))
    }
}

impl Report {
    /// Does everything work?
    pub fn works(&self) -> bool {
        self.worst() < Outcome::Failure
    }

    fn worst(&self) -> Outcome {
        let checks = self.sections.iter().flat_map(|section| &section.checks);
        checks
            .map(|check| check.outcome)
            .max()
            .unwrap_or(Outcome::Fine)
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let check = |check: &Check| {
            json!({
                "id": check.id,
                "description": check.description,
                "result": match check.outcome {
                    Outcome::Fine => "success",
                    Outcome::Warning => "warning",
                    Outcome::Failure => "error",
                },
                "error": check.message,
                "objects": check.objects,
                "hint": match check.outcome {
                    Outcome::Fine => "",
                    _ => remedy(check.id),
                },
            })
        };
        let sections: Vec<Value> = self
            .sections
            .iter()
            .map(|section| {
                let checks: Vec<Value> = section.checks.iter().map(check).collect();
                json!({"categoryName": section.name, "checks": checks})
            })
            .collect();
        json!({
            "apiVersion": "meshctl.weft.mesh/v1", "kind": "CheckReport",
            "success": self.works(), "categories": sections,
        })
    }
}

impl Outcome {
    fn sign(self) -> char {
        match self {
            Self::Fine => '√',
            Self::Warning => '‼',
            Self::Failure => '×',
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            let line = "-".repeat(section.name.chars().count());
            writeln!(f, "{}\n{line}", section.name)?;
            section
                .checks
                .iter()
                .try_for_each(|check| write!(f, "{check}"))?;
            writeln!(f)?;
        }
        writeln!(f, "Status check results are {}", self.worst().sign())
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.outcome.sign(), self.description)?;
        if self.outcome == Outcome::Fine {
            return Ok(());
        }
        for line in self.message.lines() {
            writeln!(f, "    {}", plain(line))?;
        }
        for object in self.objects.iter().take(MAX_OBJECTS) {
            writeln!(f, "    * {}", plain(object))?;
        }
        if let Some(more @ 1..) = self.objects.len().checked_sub(MAX_OBJECTS) {
            writeln!(f, "    * and {more} more")?;
        }
        writeln!(f, "    {}", remedy(self.id))?;
        writeln!(f, "    see README.md#check-{} for hints", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdict: Verdict) -> Report {
        let mut section = Section::new("kubernetes-api");
        section.add("api-reachable", "the API server answers", Verdict::fine());
        section.add("clock", "its clock is ours", verdict);
        Report {
            sections: vec![section],
        }
    }

    #[test]
    fn what_is_well_takes_one_line() {
        let text = report(Verdict::fine()).to_string();
        let expected = "kubernetes-api\n--------------\n√ the API server answers\n√ its clock is ours\n\nStatus check results are √\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_not_says_what_where_and_what_to_do() {
        let objects = (0..12).map(|at| format!("pod-{at}\u{1b}[2J")).collect();
        let bad = report(Verdict::failure("two\nlines").of(objects));
        let text = bad.to_string();
        for part in [
            "× its clock is ours\n    two\n    lines\n    * pod-0\\u{1b}[2J\n",
            "    * and 2 more\n",
            remedy("clock"),
            "see README.md#check-clock for hints\n",
            "Status check results are ×\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!bad.works() && report(Verdict::warning("x")).works());
        let json = bad.to_json();
        assert_eq!(json["success"], false);
        assert_eq!(json["categories"][0]["checks"][1]["result"], "error");
        assert_eq!(json["categories"][0]["checks"][0]["hint"], "");
    }
}
