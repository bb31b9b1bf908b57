//! The bench: two pods as network namespaces for every peer, the same load through each in turn, and what it cost the
//! proxies. `bench role NAME …` is what this program becomes inside a pod; without it, the conductor.
//!
//! ```text
//! options -> world (namespaces) -> peers (weft, floor, direct, haproxy, nginx) -> run (cases × peers × repetitions) -> report
//! in a pod: server | load | probe | floor
//! without pods: micro (instructions of single steps and of whole requests)
//! ```
//!
//! Another pair of proxies is one more name in `peers.rs` (how its two sides are started in their pods) and its
//! configuration in `configs.rs`: everything else takes peers as they come.

mod build;
mod cases;
mod certs;
mod configs;
mod figures;
mod floor;
mod histogram;
mod idle;
mod load;
mod load_h2;
mod load_tcp;
mod micro;
mod options;
mod peers;
mod pooled;
mod probe;
mod process;
mod report;
mod run;
mod server;
mod svg;
mod telemetry;
mod weft;
mod world;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    process::raise_descriptors();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["role", "server"] => server::run(),
        ["role", "load", spec] => load::run(spec),
        ["role", "probe", address, millis] => probe::run(address, millis),
        ["role", "micro", name, turns] => micro::role(name, turns),
        ["micro", ..] => micro::run(&args[1..]),
        ["role", "floor", side, folder, workers, tls] => {
            floor::run(side, folder.as_ref(), workers.parse()?, tls == "plain")
        }
        ["telemetry", ..] => {
            let options = options::Options::parse(&args[1..])?;
            build::programs(&args)?;
            match world::enter(&args)? {
                true => telemetry::run(&options),
                false => Ok(()),
            }
        }
        _ => {
            let options = options::Options::parse(&args)?;
            build::programs(&args)?;
            if world::enter(&args)? {
                run::run(&options)
            } else {
                Ok(())
            }
        }
    }
}
