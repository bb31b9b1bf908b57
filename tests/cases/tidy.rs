//! Walls between the rooms of a crate: which imports a room does without. As firm as crates, without the crates.

use crate::Case;
use anyhow::ensure;
use std::path::{Path, PathBuf};

pub(crate) const CASES: &[Case] = &[("rooms_keep_to_their_own", &[], rooms), ("products_do_not_know_each_other", &[], products)];

/// A folder or file, and what no line of it may import.
const WALLS: &[(&str, &[&str])] = &[
    ("proxy-api/src", &["tokio", "std::env", "std::net::Tcp", "hyper"]),
    ("proxy/src/detect.rs", &["tokio", "std::env"]),
    ("proxy/src/detect", &["tokio", "std::env"]),
    ("proxy/src/balance/ewma.rs", &["tokio", "std::env", "std::time::Instant"]),
    ("proxy/src/balance/breaker.rs", &["tokio", "std::env", "std::time::Instant"]),
    ("proxy/src/layers", &["tokio::net", "std::env", "tonic", "rustls"]),
    ("proxy/src/http", &["std::env", "tonic", "rustls"]),
    ("proxy/src/policy", &["tokio::net", "std::env", "tonic", "rustls"]),
    ("control/src/views", &["tokio", "std::env", "tonic", "rustls"]),
    ("control/src/inject", &["tokio", "std::env", "tonic", "std::fs"]),
    ("control/src/smi", &["tokio", "std::env", "tonic", "std::fs"]),
    ("init/src/rules.rs", &["std::process", "std::env", "nix"]),
    ("init/src/iptables.rs", &["std::process", "std::env", "nix"]),
    ("init/src/nft.rs", &["std::process", "std::env", "nix"]),
];

fn rooms() -> anyhow::Result<()> {
    let mut crossed = Vec::new();
    for (room, banned) in WALLS {
        let path = root().join(room);
        ensure!(path.exists(), "{room} is gone: change the list of walls");
        for file in sources(&path)? {
            let text = std::fs::read_to_string(&file)?;
            // What the tests of a room need is their own affair.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code.lines().map(str::trim_start).filter(|line| line.starts_with("use ") || line.starts_with("pub use ")) {
                let imports = |what: &&&str| line.trim_start_matches("pub ").trim_start_matches("use ").starts_with(**what);
                if banned.iter().any(|what| imports(&what)) {
                    crossed.push(format!("{}: {line}", file.strip_prefix(root())?.display()));
                }
            }
        }
    }
    ensure!(crossed.is_empty(), "imports that cross a wall:\n{}", crossed.join("\n"));
    Ok(())
}

fn products() -> anyhow::Result<()> {
    for product in ["proxy", "init", "control"] {
        let manifest = std::fs::read_to_string(root().join(product).join("Cargo.toml"))?;
        for other in ["weft-proxy", "weft-init", "weft-control"] {
            let depends = manifest.lines().any(|line| line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} ")));
            ensure!(!depends, "{product} depends on {other}");
        }
    }
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let is_test = path.file_stem().is_some_and(|stem| stem.to_string_lossy().contains("test"));
        if path.is_dir() && !is_test {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !is_test {
            files.push(path);
        }
    }
    Ok(files)
}
