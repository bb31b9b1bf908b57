//! Manifests to objects, state after state. The rules are those of the folder source: a broken object keeps its last valid
//! state, the others are taken over; what is no longer there is deleted.

use crate::manifest::{Loaded, ObjectKey, Origin, Problem};
use crate::smi::Groups;
use crate::source::Event;
use crate::source::folders::{Content, Folders};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A file: its name among the files of its state, the name to show, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The same in the next state: the file that is changed, not another one.
    pub id: String,
    /// As who asks knows it.
    pub shown: Arc<str>,
    /// What it says.
    pub text: String,
}

/// Objects from files, and what is wrong with these.
#[derive(Debug, Default)]
pub struct Files {
    folders: Folders,
    shown: BTreeMap<Arc<str>, Arc<str>>,
    objects: BTreeMap<ObjectKey, Loaded>,
    problems: BTreeMap<Arc<str>, Vec<Problem>>,
}

/// Files that stay.
const BASE: usize = 0;
/// Files of one state; their objects win.
const STATE: usize = 1;

impl Files {
    /// Files that are there in every state.
    pub fn new(base: Vec<File>) -> Self {
        Self::of(Groups::Current, base)
    }

    /// The same, where the old name of a group may count as well.
    pub fn of(groups: Groups, base: Vec<File>) -> Self {
        let mut files = Self {
            folders: Folders::new(groups),
            ..Self::default()
        };
        base.into_iter().for_each(|file| files.set(BASE, file));
        files.take();
        files
    }

    /// The next complete state: files that are not in it are gone.
    pub fn next(&mut self, state: Vec<File>) {
        let there: BTreeSet<String> = state.iter().map(|file| id(STATE, &file.id)).collect();
        let gone: Vec<String> = self
            .folders
            .files(STATE)
            .filter(|file| !there.contains(*file))
            .map(str::to_owned)
            .collect();
        for file in gone {
            self.folders.set(STATE, &file, Content::Gone);
        }
        state.into_iter().for_each(|file| self.set(STATE, file));
        self.take();
    }

    /// The objects in force.
    pub fn objects(&self) -> impl Iterator<Item = &Loaded> {
        self.objects.values()
    }

    /// One object.
    pub fn object(&self, key: &ObjectKey) -> Option<&Loaded> {
        self.objects.get(key)
    }

    /// What is wrong with the files as they are now.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    fn set(&mut self, folder: usize, file: File) {
        let id = id(folder, &file.id);
        self.shown.insert(id.as_str().into(), file.shown);
        self.folders.set(folder, &id, Content::Text(&file.text));
    }

    fn take(&mut self) {
        for event in self.folders.events() {
            match event {
                Event::Apply(mut loaded) | Event::ApplyLegacy(mut loaded) => {
                    self.show(&mut loaded.origin);
                    self.objects.insert(loaded.key.clone(), loaded);
                }
                Event::Delete(key) | Event::DeleteLegacy(key) => drop(self.objects.remove(&key)),
                Event::Problems { file, mut problems } => {
                    for problem in &mut problems {
                        self.show(&mut problem.origin);
                    }
                    self.problems.insert(file, problems);
                }
                Event::Synced | Event::Reached(_) => {}
            }
        }
    }

    fn show(&self, origin: &mut Origin) {
        if let Some(shown) = self.shown.get(&origin.file) {
            origin.file = shown.clone();
        }
    }
}

/// Two folders may have a file of the same name.
fn id(folder: usize, file: &str) -> String {
    format!("{folder}:{file}")
}
