//! Looking at folders: which manifests are there, and which of them changed since the last look.

use super::Event;
use super::folders::{Content, Folders};
use crate::manifest::MAX_FILE;
use crate::smi::Groups;
use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Deepest folder below one that is watched; also what ends a circle of links.
const MAX_DEPTH: usize = 16;
/// Most entries looked at in one folder tree.
const MAX_ENTRIES: usize = 100_000;
/// A file that was written this recently may be half written.
const SETTLE: Duration = Duration::from_millis(25);

/// The folders, and the files as they were at the last look.
#[derive(Debug)]
pub(super) struct Scanner {
    dirs: Vec<PathBuf>,
    folders: Folders,
    seen: HashMap<(usize, PathBuf), Stamp>,
    first: bool,
}

/// Tells a changed file from an unchanged one without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// What changed.
    pub events: Vec<Event>,
    /// Every folder there is, to be watched.
    pub folders: Vec<PathBuf>,
    /// Something is not told about by the kernel (links, a folder that is missing): look again often.
    pub blind: bool,
    /// Some file was being written: look again at once.
    pub unsettled: bool,
}

/// What is in one folder tree.
#[derive(Default)]
struct Walk {
    files: Vec<(PathBuf, Metadata)>,
    /// Files or folders that could not be looked at: what is known of them stays.
    failed: Vec<(PathBuf, String)>,
    folders: Vec<PathBuf>,
    visited: HashSet<(u64, u64)>,
    entries: usize,
    links: bool,
}

impl Scanner {
    /// Nothing is looked at yet.
    pub(super) fn new(dirs: Vec<PathBuf>, groups: Groups) -> Self {
        Scanner {
            dirs,
            folders: Folders::new(groups),
            seen: HashMap::new(),
            first: true,
        }
    }

    /// Looks at everything. `enter` is called for each folder before it is listed, so that nothing is missed between.
    pub(super) fn look(&mut self, mut enter: impl FnMut(&Path)) -> Look {
        let mut look = Look::default();
        for folder in 0..self.dirs.len() {
            let mut walk = Walk::default();
            walk.folder(&self.dirs[folder].clone(), 0, &mut enter);
            self.settle(folder, &walk, &mut look);
            look.blind |= walk.links || !walk.failed.is_empty();
            look.folders.append(&mut walk.folders);
        }
        look.events = self.folders.events();
        if std::mem::take(&mut self.first) {
            look.events.push(Event::Synced);
        }
        look
    }

    fn settle(&mut self, folder: usize, walk: &Walk, look: &mut Look) {
        for (path, metadata) in &walk.files {
            look.unsettled |= !self.file(folder, path, metadata);
        }
        for (path, why) in &walk.failed {
            self.seen.remove(&(folder, path.clone()));
            self.folders
                .set(folder, &path.to_string_lossy(), Content::Unreadable(why));
        }
        let there: HashSet<_> = walk
            .files
            .iter()
            .map(|(path, _)| path.to_string_lossy())
            .collect();
        let failed = |file: &str| {
            walk.failed
                .iter()
                .any(|(path, _)| Path::new(file).starts_with(path))
        };
        let gone: Vec<String> = self
            .folders
            .files(folder)
            .filter(|file| !there.contains(*file) && !failed(file))
            .map(str::to_owned)
            .collect();
        for file in gone {
            self.seen.remove(&(folder, PathBuf::from(&file)));
            self.folders.set(folder, &file, Content::Gone);
        }
    }

    /// False if the file has to be looked at again.
    fn file(&mut self, folder: usize, path: &Path, metadata: &Metadata) -> bool {
        let id = (folder, path.to_owned());
        let stamp = Stamp::of(metadata);
        if self.seen.get(&id) == Some(&stamp) {
            return true;
        }
        if !self.first && is_young(metadata) {
            return false;
        }
        let name = path.to_string_lossy();
        match read(path) {
            Ok(text) => self.folders.set(folder, &name, Content::Text(&text)),
            Err(why) => self.folders.set(folder, &name, Content::Unreadable(&why)),
        }
        // Written while it was read: this state counts, and the next look reads it again.
        let settled = fs::metadata(path).is_ok_and(|after| Stamp::of(&after) == stamp);
        if settled {
            self.seen.insert(id, stamp);
        }
        settled
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Stamp {
            place: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A time in the future says nothing.
fn is_young(metadata: &Metadata) -> bool {
    let age = metadata
        .modified()
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age < SETTLE)
}

fn read(path: &Path) -> Result<String, String> {
    let fail = |error: io::Error| format!("the file cannot be read: {error}");
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(fail)?;
    file.take(MAX_FILE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    if bytes.len() > MAX_FILE {
        return Err(format!(
            "the file is too large: at most {MAX_FILE} bytes are read"
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        format!(
            "the file is not text in UTF-8 (byte {})",
            error.utf8_error().valid_up_to()
        )
    })
}

impl Walk {
    fn folder(&mut self, path: &Path, depth: usize, enter: &mut impl FnMut(&Path)) {
        enter(path);
        self.folders.push(path.to_owned());
        if let Err(error) = self.list(path, depth, enter)
            && (depth == 0 || error.kind() != io::ErrorKind::NotFound)
        {
            self.failed.push((
                path.to_owned(),
                format!("the folder cannot be read: {error}"),
            ));
        }
    }

    fn list(&mut self, path: &Path, depth: usize, enter: &mut impl FnMut(&Path)) -> io::Result<()> {
        let metadata = fs::metadata(path)?;
        if !self.visited.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        let entries: Result<Vec<_>, _> = fs::read_dir(path)?.take(MAX_ENTRIES).collect();
        let mut paths: Vec<PathBuf> = entries?
            .iter()
            .map(fs::DirEntry::path)
            .filter(|path| !is_hidden(path))
            .collect();
        paths.sort();
        for path in paths {
            self.entry(path, depth, enter)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: PathBuf,
        depth: usize,
        enter: &mut impl FnMut(&Path),
    ) -> io::Result<()> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(io::Error::other(format!("more than {MAX_ENTRIES} entries")));
        }
        self.links |= path.is_symlink();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && depth < MAX_DEPTH => {
                self.folder(&path, depth + 1, enter)
            }
            Ok(metadata) if metadata.is_file() && is_manifest(&path) => {
                self.files.push((path, metadata))
            }
            // Gone between listing and looking, or a link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if is_manifest(&path) => self
                .failed
                .push((path, format!("the file cannot be read: {error}"))),
            _ => {}
        }
        Ok(())
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// `*.yaml`, `*.yml`, `*.json`; what editors write beside them (`x.yaml~`, `.x.yaml.swp`, `#x.yaml#`) is not.
pub(super) fn is_manifest(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let known = [".yaml", ".yml", ".json"]
        .iter()
        .any(|end| name.ends_with(end));
    known && !name.starts_with(['.', '#'])
}
