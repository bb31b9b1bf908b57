//! Every end-to-end case by name. Started with `role …` this program becomes what a pod runs; otherwise it runs the
//! cases, a few at a time, and says of each that cannot run here why it was ignored.

mod access;
mod balancing;
mod basics;
mod conformance;
mod dashboard;
mod demo;
mod encryption;
mod exact;
mod faults;
mod hand;
mod kube;
mod limits;
mod live;
mod monitoring;
mod observe;
mod policies;
mod promises;
mod protocols;
mod redirect;
mod refusals;
mod resilience;
mod seeds;
mod simulate;
mod splits;
mod telemetry;
mod tell;
mod tidy;
mod trust;
mod tunnels;
mod upgrade;

use harness::sandbox;
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

/// A case, and the programs it needs beside ours.
pub(crate) type Case = (
    &'static str,
    &'static [&'static str],
    fn() -> anyhow::Result<()>,
);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|word| word == "role") {
        return match harness::role::play(&args[2..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let mut arguments = Arguments::from_args();
    // Each case runs half a dozen programs and some count failures under load: two at once disturb each other.
    arguments.test_threads.get_or_insert(1);
    let no_namespaces = sandbox::unavailable();
    let no_kube = harness::kube::missing();
    let groups = [
        ("tidy", tidy::CASES, false),
        ("promises", promises::CASES, false),
        ("seeds", seeds::CASES, false),
        ("redirect", redirect::CASES, true),
        ("basics", basics::CASES, true),
        ("encryption", encryption::CASES, true),
        ("access", access::CASES, true),
        ("splits", splits::CASES, true),
        ("simulate", simulate::CASES, true),
        ("live", live::CASES, true),
        ("protocols", protocols::CASES, true),
        ("conformance", conformance::CASES, true),
        ("faults", faults::CASES, true),
        ("resilience", resilience::CASES, true),
        ("balancing", balancing::CASES, true),
        ("policies", policies::CASES, true),
        ("hand", hand::CASES, true),
        ("upgrade", upgrade::CASES, true),
        ("tunnels", tunnels::CASES, true),
        ("tell", tell::CASES, true),
        ("limits", limits::CASES, true),
        ("observe", observe::CASES, true),
        ("exact", exact::CASES, true),
        ("telemetry", telemetry::CASES, true),
        ("dashboard", dashboard::CASES, true),
        ("demo", demo::CASES, true),
        ("trust", trust::CASES, true),
        ("refusals", refusals::CASES, true),
        ("monitoring", monitoring::CASES, true),
        ("kube", kube::CASES, true),
    ];
    let mut trials = Vec::new();
    for (group, cases, needs_namespaces) in groups {
        for (name, programs, run) in cases {
            let reason = no_namespaces
                .clone()
                .filter(|_| needs_namespaces)
                .or_else(|| no_kube.clone().filter(|_| group == "kube"))
                .or_else(|| sandbox::missing(programs));
            trials.push(trial(format!("{group}::{name}"), reason, *run));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.has_failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn trial(name: String, ignored: Option<String>, run: fn() -> anyhow::Result<()>) -> Trial {
    match ignored {
        Some(reason) => {
            eprintln!("{name}: ignored: {reason}");
            Trial::test(name, || Ok(())).with_ignored_flag(true)
        }
        None => Trial::test(name, move || {
            let begun = std::time::Instant::now();
            let outcome = run();
            // Nothing is judged by it: whoever waits for all of them wants to know which ones take long.
            eprint!("{:.1} s ", begun.elapsed().as_secs_f64());
            outcome.map_err(|error| format!("{error:#}").into())
        }),
    }
}
