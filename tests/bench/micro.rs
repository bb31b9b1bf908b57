//! Micro-benches: instructions of single steps and of whole requests, counted by cachegrind (valgrind). Repeatable to a
//! fraction of a percent where times on a shared machine are not. Every case runs twice, with N and 2 N turns; the
//! difference is N turns without the set-up.
//!
//! The kernel's part is not counted, nor are instructions valgrind does not know (AVX-512): compare builds, not machines.
//! An unoptimised build has a baseline of its own: its counts say nothing about what a request costs, but a step that was
//! added shows in them, and whoever has only such a build need not wait for another one.

mod cases;
mod whole;

use anyhow::{Context, ensure};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the figures to compare with are kept, from the folder of this crate.
const BASELINE: &str = if cfg!(debug_assertions) {
    "bench/micro-dev.txt"
} else {
    "bench/micro.txt"
};
/// `--quick` takes so many times fewer turns.
const QUICK: usize = 10;
/// A case that became dearer by more than this fails the check.
const TOLERANCE: f64 = 0.03;

/// The step to be repeated so many times.
pub(crate) type Turns = fn(usize) -> anyhow::Result<()>;

/// Name, turns to count, what it does.
pub(crate) struct Micro {
    name: &'static str,
    turns: usize,
    run: Turns,
}

/// One case, under valgrind or not.
pub(crate) fn role(name: &str, turns: &str) -> anyhow::Result<()> {
    let case = cases::ALL.iter().find(|case| case.name == name);
    (case
        .with_context(|| format!("there is no micro-bench {name}"))?
        .run)(turns.parse()?)
}

/// `micro [--quick] [--check] [--write] [NAME…]`.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    ensure!(
        Command::new("valgrind").arg("--version").output().is_ok(),
        "valgrind is not installed"
    );
    let (flags, names): (Vec<_>, Vec<_>) = args.iter().partition(|arg| arg.starts_with("--"));
    let has = |flag: &str| flags.iter().any(|given| *given == flag);
    let fewer = if has("--quick") { QUICK } else { 1 };
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| *wanted == name);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(BASELINE);
    let before = read(&std::fs::read_to_string(&file).unwrap_or_default());
    let (mut measured, mut worse) = (Vec::new(), Vec::new());
    println!(
        "{:<18} {:>12} {:>12} {:>8}",
        "case", "instructions", "baseline", "change"
    );
    for case in cases::ALL.iter().filter(|case| wanted(case.name)) {
        let now = measure(case, case.turns.div_ceil(fewer))?;
        measured.push((case.name.to_owned(), now));
        let Some((_, then)) = before.iter().find(|(name, _)| *name == case.name) else {
            println!("{:<18} {now:>12.0}", case.name);
            continue;
        };
        let change = now / then - 1.0;
        println!(
            "{:<18} {now:>12.0} {then:>12.0} {:>+7.1}%",
            case.name,
            change * 100.0
        );
        if change > TOLERANCE {
            worse.push(case.name);
        }
    }
    if has("--write") {
        std::fs::write(&file, page(&measured, &before))?;
    }
    ensure!(
        worse.is_empty() || !has("--check"),
        "dearer than the baseline by more than {:.0} %: {}",
        TOLERANCE * 100.0,
        worse.join(", ")
    );
    Ok(())
}

/// The baseline anew: what was measured now, and the rest as it was.
fn page(now: &[(String, f64)], before: &[(String, f64)]) -> String {
    let mut page = String::new();
    for case in cases::ALL {
        let of = |all: &[(String, f64)]| {
            let found = all.iter().find(|(name, _)| *name == case.name);
            found.map(|(_, count)| *count)
        };
        if let Some(count) = of(now).or_else(|| of(before)) {
            let _ = writeln!(page, "{:<18} {count:>12.0}", case.name);
        }
    }
    page
}

fn read(text: &str) -> Vec<(String, f64)> {
    let lines = text.lines();
    lines
        .filter_map(|line| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.trim().parse().ok()?))
        })
        .collect()
}

/// Instructions of one turn.
fn measure(case: &Micro, turns: usize) -> anyhow::Result<f64> {
    let this = std::env::current_exe()?;
    let (once, twice) = std::thread::scope(|scope| {
        let once = scope.spawn(|| instructions(&this, case.name, turns));
        let twice = instructions(&this, case.name, 2 * turns);
        (once.join(), twice)
    });
    let once = once.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    Ok((twice? - once) / turns as f64)
}

fn instructions(this: &PathBuf, name: &str, turns: usize) -> anyhow::Result<f64> {
    let out = Command::new("valgrind")
        .args([
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
        ])
        .arg(this)
        .args(["role", "micro", name, &turns.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{name} failed under valgrind: {said}");
    let line = said.lines().find_map(|line| line.split_once("refs:"));
    let (_, count) = line.with_context(|| format!("valgrind counted nothing: {said}"))?;
    Ok(count.trim().replace(',', "").parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So that a case does not rot until somebody measures.
    #[test]
    fn every_micro_bench_runs() {
        for case in cases::ALL {
            (case.run)(3).unwrap_or_else(|error| panic!("{}: {error:#}", case.name));
        }
    }

    #[test]
    fn what_was_not_measured_stays_in_the_baseline() {
        let of = |name: &str, count| (name.to_owned(), count);
        let before = [of("detect", 1.0), of("pick", 2.0), of("gone", 3.0)];
        let page = page(&[of("pick", 5.0), of("record", 6.0)], &before);
        let expected = [of("detect", 1.0), of("pick", 5.0), of("record", 6.0)];
        assert_eq!(read(&page), expected);
    }

    #[test]
    fn the_baseline_is_read_as_it_is_written() {
        let read = read("detect          123\nwhole_h1  45678\n");
        assert_eq!(
            read,
            [
                ("detect".to_owned(), 123.0),
                ("whole_h1".to_owned(), 45678.0)
            ]
        );
    }
}
