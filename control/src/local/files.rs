//! Applied manifests: kept as the text they came as, one file for each `apply`, in a folder the node watches.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::manifest::{self, Loaded, ObjectKey, Severity};

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
        let mut others = Vec::new();
        for other in self.files()? {
            if other != file
                && let Some(rest) = without(&other, &keys)?
            {
                others.push((other, rest));
            }
        }
        write(&file, text)?;
        for (other, rest) in others {
            put(&other, &rest)?;
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
            if let Some(rest) = without(&file, &keys)? {
                put(&file, &rest)?;
                found = true;
            }
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

/// What a file says without these objects; `None`: it holds none of them.
fn without(file: &Path, keys: &BTreeSet<ObjectKey>) -> Result<Option<String>> {
    let text = fs::read_to_string(file)?;
    let goes = |l: &Loaded| keys.contains(&l.key);
    if !manifest::parse("applied", &text).0.iter().any(goes) {
        return Ok(None);
    }
    let mut kept = Vec::new();
    for document in documents(&text) {
        let (held, _) = manifest::parse("applied", &document);
        match held.iter().filter(|l| goes(l)).count() {
            0 => kept.push(document),
            all if all == held.len() => {}
            _ => kept.push(
                list_without(&document, goes)
                    .with_context(|| format!("what is applied as {}", file.display()))?,
            ),
        }
    }
    Ok(Some(kept.join("---\n")))
}

/// A list without some of its items: the others stay.
fn list_without(document: &str, goes: impl Fn(&Loaded) -> bool) -> Result<String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let read = serde_saphyr::from_str_with_options(document, options);
    let mut list: Value = read.map_err(|error| anyhow!("{error}"))?;
    let (version, kind) = (list["apiVersion"].clone(), list["kind"].clone());
    let items = list.get_mut("items").and_then(Value::as_array_mut);
    items
        .context("several objects in one document are no list")?
        .retain(|item| {
            // What the list says of its items counts for one alone, too.
            let alone = json!({"apiVersion": version, "kind": kind, "items": [item]});
            let (held, _) = manifest::parse("applied", &alone.to_string());
            !held.iter().any(&goes)
        });
    Ok(format!("{list:#}\n"))
}

/// Writes what is left of a file; nothing: it goes.
fn put(file: &Path, text: &str) -> Result<()> {
    match text.split("---\n").all(|part| part.trim().is_empty()) {
        true => Ok(fs::remove_file(file)?),
        false => write(file, text),
    }
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

/// A file name from any text; other texts have other names.
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
    let safe = match safe.trim_start_matches('_') {
        "" => "unnamed",
        some => some,
    };
    // `web.yml` is another file than `web.yaml`, and `a_b` than `a/b`.
    if format!("{safe}.yaml") == name {
        return name.to_owned();
    }
    let mut hash = DefaultHasher::new();
    name.hash(&mut hash);
    format!("{safe}-{:016x}.yaml", hash.finish())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_made_safe() {
        assert!(safe("../../etc/passwd").starts_with("etc_passwd-"));
        assert_eq!(safe("web.yaml"), "web.yaml");
        assert!(safe(&"x".repeat(70_000)).len() < 150);
        assert!(safe("").starts_with("unnamed-"));
        assert!(safe("\u{65e5}.yaml").starts_with("unnamed-"));
        for (one, other) in [
            ("/a/web.yaml", "/a/web.yml"),
            ("/a/b.yaml", "/a_b.yaml"),
            ("/\u{65e5}\u{672c}.yaml", "/\u{4e2d}\u{56fd}.yaml"),
        ] {
            assert_ne!(safe(one), safe(other));
        }
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
            .keep(
                "two.yaml",
                &format!("{}---\n{}", account("a"), account("b")),
            )
            .unwrap();
        applied.keep("one.yaml", &account("a")).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("two.yaml")).unwrap(),
            account("b")
        );
        let key = ObjectKey::new(manifest::Kind::ServiceAccount, "default", "b");
        assert!(applied.forget(&key).unwrap() && !applied.forget(&key).unwrap());
        assert!(!dir.path().join("two.yaml").exists());
        assert!(applied.keep("bad", "kind: [").is_err());
    }

    #[test]
    fn the_others_of_a_list_stay() {
        let dir = tempfile::tempdir().unwrap();
        let applied = Applied::new(dir.path().into());
        let item = |name: &str| format!("- metadata: {{ name: {name} }}\n");
        let list = format!(
            "apiVersion: v1\nkind: ServiceAccountList\nitems:\n{}{}{}",
            item("a"),
            item("b"),
            item("c")
        );
        applied.keep("list.yaml", &list).unwrap();
        let alone = "apiVersion: v1\nkind: ServiceAccount\nmetadata: { name: a }\n";
        applied.keep("alone.yaml", alone).unwrap();
        let key = |name: &str| ObjectKey::new(manifest::Kind::ServiceAccount, "default", name);
        assert!(applied.forget(&key("b")).unwrap());
        let left = fs::read_to_string(dir.path().join("list.yaml")).unwrap();
        let left: Vec<_> = manifest::parse("left", &left).0;
        let left: Vec<_> = left.into_iter().map(|l| l.key).collect();
        assert_eq!(left, [key("c")]);
        assert!(applied.forget(&key("c")).unwrap());
        assert!(!dir.path().join("list.yaml").exists());
        assert!(dir.path().join("alone.yaml").exists());
    }
}
