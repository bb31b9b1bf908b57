//! One row: the mesh, the load through it, the fault in its middle, the healing, and what was seen meanwhile.

use crate::figures::{self, Figures, Gauges};
use crate::rows::Row;
use anyhow::Context;
use harness::{Mesh, balancing, eventually, load};
use std::time::{Duration, Instant};

/// Seconds of load before the fault.
const BEFORE: u64 = 5;

pub(crate) fn run(row: &Row, full: bool) -> anyhow::Result<Figures> {
    let held = if full { row.full } else { row.short };
    let manifests = (row.manifests)();
    let manifests: Vec<&str> = manifests.iter().map(String::as_str).collect();
    let mesh = Mesh::up_with(row.access, &manifests, |options| {
        options.restart_control = false;
        let env = row.control_env.iter();
        options.control_env = env.map(|(k, v)| ((*k).into(), (*v).into())).collect();
    })?;
    mesh.answers("client", "http://web:8080/", 200)?;
    (row.prepare)(&mesh).context("the preparation")?;
    let looked = (row.look)(&mesh)?;
    let before = figures::gauges(&mesh)?;
    let [usual, faulty] = row.rate;
    let schedule = format!("{usual}x{BEFORE},{faulty}x{held},{usual}x{}", row.after);
    let began = Instant::now();
    let (samples, broken, healed, peak) = std::thread::scope(|scope| {
        let loading =
            scope.spawn(|| balancing::run(&mesh, row.to, row.path, &schedule, row.connections));
        std::thread::sleep(Duration::from_secs(BEFORE));
        let broken = load::now();
        (row.inject)(&mesh, held).context("the fault")?;
        let until = began + Duration::from_secs(BEFORE + held);
        let peak = watch(&mesh, row, until);
        (row.heal)(&mesh).context("the healing")?;
        let healed = load::now();
        let samples = loading.join().map_err(|_| anyhow::anyhow!("the load"))??;
        anyhow::Ok((samples, broken, healed, peak))
    })?;
    let after = eventually("the proxy is there", || figures::gauges(&mesh))?;
    let now = eventually("the proxies are there", || (row.look)(&mesh))?;
    let more = looked.iter().zip(now);
    Ok(Figures::of(
        &samples,
        broken,
        healed,
        [before, peak.unwrap_or(before), after],
        more.map(|((name, then), (_, now))| (*name, now - then))
            .collect(),
    ))
}

/// Looks at the client's proxy once a second while the fault holds; the highest of each.
fn watch(mesh: &Mesh, row: &Row, until: Instant) -> Option<Gauges> {
    let mut peak = None;
    while Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(Duration::from_secs(1)));
        if row.watched
            && let Ok(now) = figures::gauges(mesh)
        {
            peak = Some(peak.map_or(now, |peak: Gauges| peak.max(now)));
        }
    }
    peak
}
