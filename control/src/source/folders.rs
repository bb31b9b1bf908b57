//! Folders of manifests as a value: file contents in, events out. What was valid last stays in force where a file or an
//! object is broken.

use super::Event;
use crate::manifest::{
    Loaded, Object, ObjectKey, Origin, Parsed, Problem, Severity, parse_file_of,
};
use crate::smi::Groups;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A file: the number of its folder, and its name. The greater one wins.
pub type FileId = (usize, Arc<str>);

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// It says this.
    Text(&'a str),
    /// It is there, but cannot be read.
    Unreadable(&'a str),
    /// It is gone.
    Gone,
}

/// All files of all folders, and what was announced of them.
#[derive(Debug, Default)]
pub struct Folders {
    files: BTreeMap<FileId, File>,
    /// Which files have an object.
    providers: HashMap<ObjectKey, BTreeSet<FileId>>,
    /// What the receiver knows.
    announced: BTreeMap<ObjectKey, Loaded>,
    complaints: BTreeMap<FileId, Vec<Problem>>,
    groups: Groups,
    /// What has to be looked at before the next events.
    touched: BTreeSet<ObjectKey>,
    changed: BTreeSet<FileId>,
}

#[derive(Debug, Default)]
struct File {
    /// The objects in force, by what the file says or said when it was last valid.
    objects: BTreeMap<ObjectKey, Loaded>,
    problems: Vec<Problem>,
}

impl Folders {
    /// Without files yet.
    pub fn new(groups: Groups) -> Self {
        Self {
            groups,
            ..Self::default()
        }
    }

    /// Takes note of a file. What follows from it is told by [`Folders::events`].
    pub fn set(&mut self, folder: usize, file: &str, content: Content<'_>) {
        let id: FileId = (folder, file.into());
        let old = self.files.remove(&id).unwrap_or_default();
        let new = match content {
            Content::Gone => None,
            Content::Unreadable(why) => Some(unreadable(old.objects.clone(), &id.1, why)),
            Content::Text(text) => {
                Some(parsed(&old.objects, parse_file_of(self.groups, file, text)))
            }
        };
        for key in old.objects.into_keys() {
            self.unlist(&key, &id);
            self.touched.insert(key);
        }
        if let Some(new) = new {
            for key in new.objects.keys() {
                self.providers
                    .entry(key.clone())
                    .or_default()
                    .insert(id.clone());
                self.touched.insert(key.clone());
            }
            self.files.insert(id.clone(), new);
        }
        self.changed.insert(id);
    }

    /// The files of a folder.
    pub fn files(&self, folder: usize) -> impl Iterator<Item = &str> {
        let first: FileId = (folder, "".into());
        self.files
            .range(first..)
            .take_while(move |(id, _)| id.0 == folder)
            .map(|(id, _)| &*id.1)
    }

    /// What changed since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for key in std::mem::take(&mut self.touched) {
            if let Some(providers) = self.providers.get(&key) {
                self.changed.extend(providers.iter().cloned());
            }
            events.extend(self.announce(key));
        }
        for id in std::mem::take(&mut self.changed) {
            events.extend(self.complain(&id));
        }
        events
    }

    fn unlist(&mut self, key: &ObjectKey, id: &FileId) {
        if let Some(providers) = self.providers.get_mut(key) {
            providers.remove(id);
            if providers.is_empty() {
                self.providers.remove(key);
            }
        }
    }

    fn winner(&self, key: &ObjectKey) -> Option<&Loaded> {
        let id = self.providers.get(key)?.last()?;
        self.files.get(id)?.objects.get(key)
    }

    fn announce(&mut self, key: ObjectKey) -> Option<Event> {
        match self.winner(&key).cloned() {
            Some(loaded) if self.announced.get(&key) == Some(&loaded) => None,
            Some(loaded) => {
                self.announced.insert(key, loaded.clone());
                Some(Event::Apply(loaded))
            }
            None => self.announced.remove(&key).map(|_| Event::Delete(key)),
        }
    }

    fn complain(&mut self, id: &FileId) -> Option<Event> {
        let problems = self.problems(id);
        let before = self.complaints.get(id).map_or(&[][..], Vec::as_slice);
        if before == problems {
            return None;
        }
        match problems.is_empty() {
            true => self.complaints.remove(id),
            false => self.complaints.insert(id.clone(), problems.clone()),
        };
        Some(Event::Problems {
            file: id.1.clone(),
            problems,
        })
    }

    /// Problems of the file itself, and objects that another file of the folder overrides. (A later folder is meant to.)
    fn problems(&self, id: &FileId) -> Vec<Problem> {
        let Some(file) = self.files.get(id) else {
            return Vec::new();
        };
        let mut problems = file.problems.clone();
        for loaded in file.objects.values() {
            let mut providers = self.providers.get(&loaded.key).into_iter().flatten();
            if let Some((_, winner)) = providers
                .rfind(|other| other.0 == id.0)
                .filter(|winner| *winner != id)
            {
                let message = format!("is in {winner} as well, which wins");
                problems.push(problem(
                    &loaded.origin,
                    Some(&loaded.key),
                    message,
                    Severity::Warning,
                ));
            }
        }
        problems
    }
}

fn unreadable(objects: BTreeMap<ObjectKey, Loaded>, file: &Arc<str>, why: &str) -> File {
    let origin = Origin {
        file: file.clone(),
        line: 0,
    };
    let kept = kept(objects.len());
    File {
        objects,
        problems: vec![problem(
            &origin,
            None,
            format!("{why}{kept}"),
            Severity::Error,
        )],
    }
}

fn parsed(old: &BTreeMap<ObjectKey, Loaded>, parsed: Parsed) -> File {
    let relevant = |loaded: &Loaded| !matches!(loaded.object, Object::Other { .. });
    let mut objects: BTreeMap<ObjectKey, Loaded> = parsed
        .loaded
        .into_iter()
        .filter(relevant)
        .map(|loaded| (loaded.key.clone(), loaded))
        .collect();
    let mut keep: Vec<&Loaded> = Vec::new();
    for (key, loaded) in old {
        // What could not be accepted, or stood where nothing can be read, stays as it was (D37).
        let broken = parsed.broken.contains(key) || parsed.unreadable;
        if broken && !objects.contains_key(key) {
            keep.push(loaded);
        }
    }
    let mut problems = parsed.problems;
    if let Some(error) = problems
        .iter_mut()
        .find(|problem| problem.severity == Severity::Error)
    {
        error.message.push_str(&kept(keep.len()));
    }
    objects.extend(
        keep.into_iter()
            .map(|loaded| (loaded.key.clone(), loaded.clone())),
    );
    File { objects, problems }
}

fn kept(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " (the last valid state of 1 object stays in force)".to_owned(),
        _ => format!(" (the last valid state of {count} objects stays in force)"),
    }
}

fn problem(
    origin: &Origin,
    object: Option<&ObjectKey>,
    message: String,
    severity: Severity,
) -> Problem {
    Problem {
        origin: origin.clone(),
        object: object.map(ObjectKey::to_string),
        field: None,
        message,
        severity,
    }
}
