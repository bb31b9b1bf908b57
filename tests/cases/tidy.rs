//! Walls between the rooms of a crate: which imports a room does without. As firm as crates, without the crates.

use crate::Case;
use anyhow::{Context, ensure};
use std::fmt::Write;
use std::path::{Path, PathBuf};

pub(crate) const CASES: &[Case] = &[
    ("rooms_keep_to_their_own", &[], rooms),
    ("products_do_not_know_each_other", &[], products),
    ("readme_tables_are_fresh", &[], readme),
];

/// A folder or file, and what no line of it may import.
const WALLS: &[(&str, &[&str])] = &[
    (
        "proxy-api/src",
        &["tokio", "std::env", "std::net::Tcp", "hyper"],
    ),
    ("proxy/src/detect", &["tokio", "std::env"]),
    (
        "proxy/src/balance/ewma.rs",
        &["tokio", "std::env", "std::time::Instant"],
    ),
    (
        "proxy/src/balance/breaker.rs",
        &["tokio", "std::env", "std::time::Instant"],
    ),
    (
        "proxy/src/layers",
        &["tokio::net", "std::env", "tonic", "rustls"],
    ),
    ("proxy/src/http", &["std::env", "tonic", "rustls"]),
    (
        "proxy/src/policy",
        &["tokio::net", "std::env", "tonic", "rustls"],
    ),
    (
        "control/src/views",
        &["tokio", "std::env", "tonic", "rustls"],
    ),
    (
        "control/src/inject",
        &["tokio", "std::env", "tonic", "std::fs"],
    ),
    (
        "control/src/smi",
        &["tokio", "std::env", "tonic", "std::fs"],
    ),
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
            for line in code
                .lines()
                .map(str::trim_start)
                .filter(|line| line.starts_with("use ") || line.starts_with("pub use "))
            {
                let imports = |what: &&&str| {
                    line.trim_start_matches("pub ")
                        .trim_start_matches("use ")
                        .starts_with(**what)
                };
                if banned.iter().any(|what| imports(&what)) {
                    crossed.push(format!("{}: {line}", file.strip_prefix(root())?.display()));
                }
            }
        }
    }
    ensure!(
        crossed.is_empty(),
        "imports that cross a wall:\n{}",
        crossed.join("\n")
    );
    Ok(())
}

fn products() -> anyhow::Result<()> {
    for product in ["proxy", "init", "control"] {
        let manifest = std::fs::read_to_string(root().join(product).join("Cargo.toml"))?;
        for other in ["weft-proxy", "weft-init", "weft-control"] {
            let depends = manifest.lines().any(|line| {
                line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} "))
            });
            ensure!(!depends, "{product} depends on {other}");
        }
    }
    Ok(())
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn sources(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let is_test = path
            .file_stem()
            .is_some_and(|stem| stem.to_string_lossy().contains("test"));
        if path.is_dir() && !is_test {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !is_test {
            files.push(path);
        }
    }
    Ok(files)
}

/// Tables of the README that are made from the code they describe.
fn readme() -> anyhow::Result<()> {
    const BEGIN: &str = "<!-- generated: tables; WEFT_BLESS=1 tests/run tidy writes them -->\n";
    const END: &str = "<!-- end -->";
    let file = root().join("README.md");
    let text = std::fs::read_to_string(&file)?;
    let (before, rest) = text
        .split_once(BEGIN)
        .context("README.md has no place for the tables")?;
    let (_, after) = rest
        .split_once(END)
        .context("README.md has no end of the tables")?;
    let wanted = format!("{before}{BEGIN}{}{END}{after}", tables()?);
    if std::env::var_os("WEFT_BLESS").is_some() {
        std::fs::write(&file, &wanted)?;
        return Ok(());
    }
    ensure!(
        wanted == text,
        "the tables of README.md are stale: WEFT_BLESS=1 tests/run tidy"
    );
    Ok(())
}

fn tables() -> anyhow::Result<String> {
    let mut text = String::new();
    writeln!(
        text,
        "\n## Settings of the proxy\n\n| variable | default | meaning |\n|---|---|---|"
    )?;
    for setting in weft_proxy::config::SETTINGS {
        let default = if setting.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", setting.default)
        };
        writeln!(
            text,
            "| `{}` | {default} | {} |",
            setting.name,
            setting.meaning.replace('|', "\\|")
        )?;
    }
    writeln!(text, "\n## Annotations\n\n| key | meaning |\n|---|---|")?;
    for (key, meaning) in annotations()? {
        writeln!(text, "| `{key}` | {meaning} |")?;
    }
    writeln!(
        text,
        "\n## Fields of a ServicePolicy\n\n{}",
        weft_control::policy::fields::table().trim_end()
    )?;
    writeln!(
        text,
        "\n## Values of an installation\n\n`meshctl install --set KEY=VALUE`, or in a file for `--values`; the same in the Helm chart.\n\n{}",
        weft_control::install::values::table().trim_end()
    )?;
    writeln!(
        text,
        "\n## When a check fails\n\n{}",
        weft_control::check::hints::table().trim_end()
    )?;
    writeln!(
        text,
        "\n## Errors the proxy makes\n\n`meshctl explain CODE` says what to do.\n\n| code | name | HTTP | gRPC | meaning |\n|---|---|---|---|---|"
    )?;
    for entry in weft_proxy_api::errors::ALL {
        writeln!(
            text,
            "| {} | `{}` | {} | {} | {} |",
            entry.code, entry.name, entry.http_status, entry.grpc_status, entry.meaning
        )?;
    }
    writeln!(
        text,
        "\n## Metrics\n\n| name | kind | labels | meaning |\n|---|---|---|---|"
    )?;
    for metric in weft_proxy::metrics::catalogue::ALL {
        let labels = metric.labels.join(", ");
        writeln!(
            text,
            "| `{}` | {} | {labels} | {} |",
            metric.name,
            metric.kind.label(),
            metric.help
        )?;
    }
    text.push('\n');
    Ok(text)
}

/// Every key of `names::keys` with its comment.
fn annotations() -> anyhow::Result<Vec<(String, String)>> {
    let source = std::fs::read_to_string(root().join("proxy-api/src/names.rs"))?;
    let module = source
        .split("pub mod keys {")
        .nth(1)
        .and_then(|rest| rest.split("\n}").next())
        .context("names::keys")?;
    let mut keys = Vec::new();
    let mut meaning = String::new();
    for line in module.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            meaning += comment;
        } else if let Some((_, value)) = line.split_once("= \"") {
            keys.push((
                value.trim_end_matches("\";").to_owned(),
                std::mem::take(&mut meaning).trim().to_owned(),
            ));
        }
    }
    Ok(keys)
}
