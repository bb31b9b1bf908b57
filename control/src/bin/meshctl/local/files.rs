//! Manifests in files, folders and on stdin.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Files by name, with their text.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<(String, String)>> {
    let read = |path: PathBuf| -> Result<(String, String)> {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            return Ok(("stdin".into(), text));
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.to_string_lossy().into_owned(), text))
    };
    files(paths)?.into_iter().map(read).collect()
}

/// Folders become the manifests in them.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            let kept = if path == Path::new("-") {
                path.clone()
            } else {
                std::path::absolute(path)?
            };
            all.push(kept);
            continue;
        }
        let inside = manifests_in(path)?;
        if inside.is_empty() {
            bail!("there are no manifests in {}", path.display());
        }
        for file in inside {
            all.push(std::path::absolute(file)?);
        }
    }
    Ok(all)
}

/// Neither manifests nor folders that may hold some.
pub(super) fn is_empty(dir: &Path) -> bool {
    let folders = |entries: std::fs::ReadDir| entries.flatten().any(|e| e.path().is_dir());
    manifests_in(dir).is_ok_and(|files| files.is_empty())
        && !std::fs::read_dir(dir).is_ok_and(folders)
}

/// Manifests of a folder, in order.
fn manifests_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?.flatten();
    let mut inside: Vec<_> = entries.map(|entry| entry.path()).collect();
    inside.retain(|file| {
        let extension = file.extension().and_then(|e| e.to_str());
        file.is_file() && matches!(extension, Some("yaml" | "yml" | "json"))
    });
    inside.sort();
    Ok(inside)
}
