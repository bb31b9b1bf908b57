//! Steers the traffic of one network namespace (a pod, a virtual machine) into its sidecar.
//!
//! ```text
//!   from outside ─→ PREROUTING ─→ WEFT_INBOUND   skip admin port, skip ports, else → redirect to 4143
//!   from inside  ─→ OUTPUT     ─→ WEFT_OUTBOUND  skip the proxy itself, loopback, skip ports and networks,
//!                                                else → redirect to 4140
//! ```
//!
//! Only TCP is steered. [`args`] become a list of [`rules`] (pure), which every [`backend`] renders in its own language
//! and applies in one atomic step; [`verify`] then proves that a connection really arrives at the proxy's port.
//! Nothing else in Weft touches the packet filter.

pub mod args;
pub mod backend;
mod iptables;
mod netlink;
pub mod nft;
pub mod rules;
pub mod verify;

use args::Args;
use backend::Backend;
use clap::Parser;
use rules::{Family, Plan};
use std::process::ExitCode;

/// Parses the command line, does what it says, and tells the exit code: 0 done, 1 failed, 2 wrong arguments.
pub fn run() -> ExitCode {
    let args = Args::parse();
    match execute(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-init: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Plan, then apply (or remove, or only print), then verify.
pub fn execute(args: &Args) -> anyhow::Result<()> {
    let plan = Plan::from_args(args);
    if args.dry_run {
        let families = families(args);
        let backend = Backend::choose(args.backend, &families).unwrap_or(Backend::Nft);
        println!("# backend: {backend}");
        print!("{}", backend.render(&plan, &families));
        return Ok(());
    }
    if args.remove {
        let backend = Backend::remove_everywhere(args.backend)?;
        println!("weft-init: redirection removed ({backend})");
        return Ok(());
    }
    let families = families(args);
    let backend = Backend::choose(args.backend, &families)?;
    backend.apply(&plan, &families)?;
    println!(
        "weft-init: redirection in place by {backend} for {}",
        rules::join(&families)
    );
    if args.no_verify {
        return Ok(());
    }
    for line in verify::outbound(&plan, &families)? {
        println!("weft-init: {line}");
    }
    Ok(())
}

/// IPv4 always; IPv6 wherever the kernel has it, so that nothing slips past the mesh by the other family.
fn families(args: &Args) -> Vec<Family> {
    let v6 = !args.no_ipv6 && std::path::Path::new("/proc/net/if_inet6").exists();
    if v6 {
        vec![Family::V4, Family::V6]
    } else {
        vec![Family::V4]
    }
}
