//! Manifests as commands take them: files, folders and stdin, found as the controller finds them.

use anyhow::{Context, Result, bail};
use std::io::Read;
use std::path::{Path, PathBuf};
use weft_control::manifest::MAX_FILE;
use weft_control::simulate::files::File;

/// Deepest folder below one that is named; also what ends a circle of links.
const MAX_DEPTH: usize = 16;

/// The files that these paths mean, each with its text.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            files.push(file(
                "stdin".to_owned(),
                "stdin",
                text(std::io::stdin(), path)?,
            ));
        } else if path.is_dir() {
            let inside = inside(path, 0)?;
            if inside.is_empty() {
                bail!("there are no manifests in {}", path.display());
            }
            for path in inside {
                files.push(file(shown(&path), &shown(&path), open(&path)?));
            }
        } else {
            files.push(file(shown(path), &shown(path), open(path)?));
        }
    }
    Ok(files)
}

/// One complete state: a file is the same file in every state, a folder's files are told apart by their place in it.
pub(crate) fn read_state(path: &Path) -> Result<Vec<File>> {
    if !path.is_dir() {
        let mut files = read(&[path.to_owned()])?;
        files
            .iter_mut()
            .for_each(|file| file.id = "state".to_owned());
        return Ok(files);
    }
    let name = |inner: &PathBuf| shown(inner.strip_prefix(path).unwrap_or(inner));
    inside(path, 0)?
        .iter()
        .map(|inner| Ok(file(name(inner), &shown(inner), open(inner)?)))
        .collect()
}

/// The text of a file, or of stdin.
pub(crate) fn open(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        return text(std::io::stdin(), path);
    }
    let file = std::fs::File::open(path);
    text(
        file.with_context(|| format!("cannot read {}", path.display()))?,
        path,
    )
}

fn file(id: String, shown: &str, text: String) -> File {
    File {
        id,
        shown: shown.into(),
        text,
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// No more than one byte over what is read of a manifest: that it is too large is said where it is read.
fn text(from: impl Read, path: &Path) -> Result<String> {
    let mut text = String::new();
    from.take(MAX_FILE as u64 + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

/// Manifests below a folder, in order.
fn inside(folder: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.iter().map(|entry| entry.path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_manifest = [".yaml", ".yml", ".json"]
            .iter()
            .any(|end| name.ends_with(end));
        match path.is_dir() {
            _ if name.starts_with(['.', '#']) => {}
            true if depth < MAX_DEPTH => files.extend(inside(&path, depth + 1)?),
            false if is_manifest => files.push(path),
            _ => {}
        }
    }
    Ok(files)
}
