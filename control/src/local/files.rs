//! Applied manifests: kept as the text they came as, one file for each `apply`, in a folder the node watches.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::manifest::{self, ObjectKey, Severity};

/// Most files that can be applied.
const MAX_FILES: usize = 2000;

/// The folder of applied manifests.
pub(crate) struct Applied {
    dir: PathBuf,
}

impl Applied {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Keep a text. The newest word on an object counts: it leaves files applied earlier. A text that cannot be
    /// understood is not kept. Returns what is wrong with it.
    pub(crate) fn keep(&self, name: &str, text: &str) -> Result<Vec<String>> {
        if text.len() > manifest::MAX_FILE {
            bail!("{name} is larger than {} bytes", manifest::MAX_FILE);
        }
        let (loaded, problems) = manifest::parse(name, text);
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        if problems
            .iter()
            .any(|problem| problem.severity == Severity::Error)
        {
            bail!("nothing was applied:\n{}", said.join("\n"));
        }
        let file = self.dir.join(safe(name));
        if !file.exists() && fs::read_dir(&self.dir)?.count() >= MAX_FILES {
            bail!("{MAX_FILES} files are applied already");
        }
        let keys: BTreeSet<_> = loaded.iter().map(|l| l.key.clone()).collect();
        write(&file, text)?;
        for other in self.files()? {
            if other != file {
                take_out(&other, &keys)?;
            }
        }
        Ok(said)
    }

    /// Forget a whole file; returns what was in it.
    pub(crate) fn forget_file(&self, name: &str) -> Result<Vec<ObjectKey>> {
        let file = self.dir.join(safe(name));
        let Ok(text) = fs::read_to_string(&file) else {
            bail!("{name} was not applied")
        };
        fs::remove_file(file)?;
        Ok(manifest::parse(name, &text)
            .0
            .into_iter()
            .map(|l| l.key)
            .collect())
    }

    /// Forget one object; `false`: it was never applied.
    pub(crate) fn forget(&self, key: &ObjectKey) -> Result<bool> {
        let keys = BTreeSet::from([key.clone()]);
        let mut found = false;
        for file in self.files()? {
            found |= take_out(&file, &keys)?;
        }
        Ok(found)
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let files = fs::read_dir(&self.dir)?.flatten().map(|entry| entry.path());
        Ok(files
            .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
            .collect())
    }
}

/// Remove the documents that hold these objects. `false`: none did.
fn take_out(file: &Path, keys: &BTreeSet<ObjectKey>) -> Result<bool> {
    let text = fs::read_to_string(file)?;
    let holds = |text: &str| {
        manifest::parse("applied", text)
            .0
            .iter()
            .any(|l| keys.contains(&l.key))
    };
    if !holds(&text) {
        return Ok(false);
    }
    let kept: Vec<_> = documents(&text)
        .into_iter()
        .filter(|document| !holds(document))
        .collect();
    if kept.iter().all(|document| document.trim().is_empty()) {
        fs::remove_file(file)?;
    } else {
        write(file, &kept.join("---\n"))?;
    }
    Ok(true)
}

/// The documents of a YAML text. A line `---` inside a block scalar would be indented.
fn documents(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let marker = line.trim_end();
        if marker == "---" || marker.starts_with("--- ") || marker.starts_with("---\t") {
            all.push(
                line.strip_prefix("---")
                    .unwrap_or("")
                    .trim_start()
                    .to_owned(),
            );
        } else if let Some(last) = all.last_mut() {
            last.push_str(line);
        }
    }
    all
}

fn write(file: &Path, text: &str) -> Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    let mut aside = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    aside.write_all(text.as_bytes())?;
    aside.persist(file)?;
    Ok(())
}

/// A file name from any text.
fn safe(name: &str) -> String {
    let plain = name
        .trim_end_matches(".yaml")
        .trim_end_matches(".yml")
        .trim_end_matches(".json");
    let mut safe: String = plain
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    // The end of a path tells files apart better than its beginning.
    safe = safe.split_off(safe.len().saturating_sub(120));
    format!(
        "{}.yaml",
        if safe.is_empty() {
            "unnamed"
        } else {
            safe.trim_start_matches('_')
        }
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_made_safe() {
        assert_eq!(safe("../../etc/passwd"), "etc_passwd.yaml");
        assert_eq!(safe("web.yaml"), "web.yaml");
        assert!(safe(&"x".repeat(70_000)).len() < 130);
        assert_eq!(safe(""), "unnamed.yaml");
    }

    #[test]
    fn documents_are_cut_at_their_markers() {
        assert_eq!(
            documents("a: 1\n---\nb: |\n  ---\n--- # c\nc: 1\n"),
            ["a: 1\n", "b: |\n  ---\n", "# c\nc: 1\n"]
        );
    }

    #[test]
    fn the_newest_word_on_an_object_counts() {
        let dir = tempfile::tempdir().unwrap();
        let applied = Applied::new(dir.path().into());
        let account = |name: &str| {
            format!("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n")
        };
        applied
            .keep("two", &format!("{}---\n{}", account("a"), account("b")))
            .unwrap();
        applied.keep("one", &account("a")).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("two.yaml")).unwrap(),
            account("b")
        );
        let key = ObjectKey::new(manifest::Kind::ServiceAccount, "default", "b");
        assert!(applied.forget(&key).unwrap() && !applied.forget(&key).unwrap());
        assert!(!dir.path().join("two.yaml").exists());
        assert!(applied.keep("bad", "kind: [").is_err());
    }
}
