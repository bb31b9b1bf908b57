//! Every seed of every fuzz target, through the very functions that are fuzzed; and, deterministically, what a little
//! damage makes of them.

use crate::Case;
use anyhow::{Context, ensure};
use std::path::Path;

#[allow(missing_docs, unreachable_pub)]
mod targets {
    include!("../../fuzz/src/all.rs");
}

pub(crate) const CASES: &[Case] = &[("every_seed_of_every_fuzz_target", &[], replay)];

/// Damaged copies made of each seed, unless `WEFT_FUZZ_COPIES` asks for more: fuzzing where there is no fuzzer.
const COPIES: u64 = 50;
/// A seed larger than this is replayed, but not damaged.
const SMALL: usize = 8 * 1024;

fn replay() -> anyhow::Result<()> {
    let copies = std::env::var("WEFT_FUZZ_COPIES").ok();
    let copies = copies.map_or(Ok(COPIES), |copies| copies.parse())?;
    let only = std::env::var("WEFT_FUZZ_TARGET").ok();
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    for (name, target) in targets::TARGETS.iter().filter(|(name, _)| wanted(name)) {
        let mut count = 0;
        for entry in
            std::fs::read_dir(seeds.join(name)).with_context(|| format!("no seeds for {name}"))?
        {
            let path = entry?.path();
            let bytes = std::fs::read(&path)?;
            let shown = path.display().to_string();
            run(*target, &bytes).with_context(|| format!("{name} panicked at {shown}"))?;
            for copy in (0..copies).filter(|_| bytes.len() <= SMALL) {
                let damaged = damage(&bytes, copy);
                run(*target, &damaged).with_context(|| {
                    format!("{name} panicked at copy {copy} of {shown}: {damaged:?}")
                })?;
            }
            count += 1;
        }
        ensure!(count > 0, "no seeds for {name}");
    }
    Ok(())
}

fn run(target: fn(&[u8]), bytes: &[u8]) -> anyhow::Result<()> {
    std::panic::catch_unwind(|| target(bytes)).map_err(|_| anyhow::anyhow!("a panic"))
}

/// Flips, drops and doubles a few bytes; the same for the same number (xorshift).
fn damage(bytes: &[u8], number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let mut damaged = bytes.to_vec();
    for _ in 0..=random(4) {
        let at = random(damaged.len());
        match random(4) {
            0 if !damaged.is_empty() => damaged[at] ^= 1 << random(8),
            1 if !damaged.is_empty() => drop(damaged.remove(at)),
            2 => damaged.truncate(at),
            _ => damaged.insert(at.min(damaged.len()), b"\0\n:{}[]&*%/.-\"'\xff"[random(16)]),
        }
    }
    damaged
}
