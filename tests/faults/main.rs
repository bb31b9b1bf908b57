//! Rows of the fault matrix, each with its figures: `target/debug/faults [--full] [--markdown FILE]
//! [ROW…]`, after `cargo build --workspace --bins --tests`. Every row is a mesh of its own (three endpoints and a client, real
//! programs in namespaces), an open-loop load through it, a fault in the middle, and its healing. Rows with a name in
//! words are measured in ways of their own. With `--markdown`, the rows that ran replace theirs in FILE.

mod figures;
mod others;
mod page;
mod promise;
mod rows;
mod run;

use harness::sandbox;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [role, rest @ ..] = &args[..]
        && role == "role"
    {
        return harness::role::play(rest).map(|()| ExitCode::SUCCESS);
    }
    if let Some(reason) = sandbox::unavailable() {
        println!("ignored: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let args = Args::of(args)?;
    let mut report = Report {
        page: args.page.as_deref(),
        bad: Vec::new(),
    };
    println!("{}", page::HEAD);
    for row in rows::all().filter(|row| args.wants(row.name)) {
        let judged = run::run(row, args.full).map(|figures| {
            let broken = row.broken(&figures);
            (page::line(row, &figures, &broken), broken.is_empty())
        });
        report.add(row.name, judged)?;
    }
    println!("{}", page::OTHERS_HEAD);
    for other in others::ALL.iter().filter(|other| args.wants(other.name)) {
        let judged = (other.run)(args.full)
            .map(|(figures, kept)| (page::other_line(other, &figures, kept), kept));
        report.add(other.name, judged)?;
    }
    if report.bad.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("not kept, or not run: {}", report.bad.join(", "));
    Ok(ExitCode::FAILURE)
}

struct Args {
    full: bool,
    page: Option<PathBuf>,
    named: Vec<String>,
}

impl Args {
    fn of(words: Vec<String>) -> anyhow::Result<Self> {
        let (mut full, mut page, mut named) = (false, None, Vec::new());
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--full" => full = true,
                "--markdown" => page = words.next().map(PathBuf::from),
                _ => named.push(word),
            }
        }
        let is_row = |name: &str| {
            rows::all().any(|row| row.name == name)
                || others::ALL.iter().any(|other| other.name == name)
        };
        let unknown = named.iter().find(|name| !is_row(name));
        anyhow::ensure!(unknown.is_none(), "there is no row {unknown:?}");
        Ok(Self { full, page, named })
    }

    fn wants(&self, name: &str) -> bool {
        self.named.is_empty() || self.named.iter().any(|at| at == name)
    }
}

/// What was found, told as soon as it is: a run may be ended in between.
struct Report<'a> {
    page: Option<&'a Path>,
    /// Rows that do not keep their promise, or could not be run.
    bad: Vec<&'static str>,
}

impl Report<'_> {
    fn add(
        &mut self,
        name: &'static str,
        judged: anyhow::Result<(String, bool)>,
    ) -> anyhow::Result<()> {
        let (line, kept) = match judged {
            Ok((line, kept)) => (Some(line), kept),
            Err(error) => {
                println!("| {name} | could not be run: {error:#} |");
                (None, false)
            }
        };
        self.bad.extend((!kept).then_some(name));
        if let Some(line) = line {
            println!("{line}");
            if let Some(page) = self.page {
                page::write(page, &[(name, line)])?;
            }
        }
        Ok(())
    }
}
