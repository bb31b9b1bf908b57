//! The ways to talk to the kernel's packet filter: probing for one that works, one atomic step for each family, and
//! taking everything away again. The only file that runs other programs.

use crate::iptables::Side;
use crate::rules::{Family, INBOUND_CHAIN, Plan};
use crate::{iptables, netlink, nft};
use anyhow::{Context, bail};
use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};

/// What was asked for on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The first that works: iptables-nft, iptables-legacy, nft.
    Auto,
    /// The iptables programs on top of nf_tables.
    IptablesNft,
    /// The iptables programs on top of ip_tables.
    IptablesLegacy,
    /// nf_tables itself; needs no program.
    Nft,
}

/// A way that works here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `iptables-nft-restore` and its kin.
    IptablesNft,
    /// `iptables-legacy-restore` and its kin.
    IptablesLegacy,
    /// A native table, written by netlink.
    Nft,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::IptablesNft => "iptables-nft",
            Backend::IptablesLegacy => "iptables-legacy",
            Backend::Nft => "nft",
        })
    }
}

const ALL: [Backend; 3] = [Backend::IptablesNft, Backend::IptablesLegacy, Backend::Nft];

impl Backend {
    /// The one asked for, or the first that works for all families; the error says why each one does not.
    pub fn choose(choice: Choice, families: &[Family]) -> anyhow::Result<Self> {
        let candidates = ALL.into_iter().filter(|backend| backend.is(choice));
        let mut reasons = Vec::new();
        for backend in candidates {
            match families
                .iter()
                .try_for_each(|family| backend.probe(*family))
            {
                Ok(()) => return Ok(backend),
                Err(error) => reasons.push(format!("{backend}: {error:#}")),
            }
        }
        bail!(
            "no way to redirect traffic works here: {}",
            reasons.join("; ")
        )
    }

    fn is(self, choice: Choice) -> bool {
        matches!(
            (choice, self),
            (Choice::Auto, _)
                | (Choice::IptablesNft, Backend::IptablesNft)
                | (Choice::IptablesLegacy, Backend::IptablesLegacy)
                | (Choice::Nft, Backend::Nft)
        )
    }

    /// Asks for something harmless that needs everything the rules need, and changes nothing.
    fn probe(self, family: Family) -> anyhow::Result<()> {
        match self {
            Backend::Nft => netlink::chain_exists(family, nft::TABLE, INBOUND_CHAIN).map(drop),
            _ => {
                let trial = "*nat\n:WEFT_PROBE - [0:0]\n-A WEFT_PROBE -p tcp -j REDIRECT --to-ports 1\nCOMMIT\n";
                self.restore(family, trial, &["--test"])
            }
        }
    }

    /// The rules in this backend's language.
    pub fn render(self, plan: &Plan, families: &[Family]) -> String {
        let render = |family: &Family| match self {
            Backend::Nft => nft::text(plan, *family),
            _ => format!("# {family}\n{}", iptables::restore(plan, *family, "", &[])),
        };
        families.iter().map(render).collect()
    }

    /// Puts the rules in place, in place of those that another backend may have written before. If a later family
    /// fails, the earlier one is taken away again.
    pub fn apply(self, plan: &Plan, families: &[Family]) -> anyhow::Result<()> {
        self.apply_families(plan, families)?;
        for other in ALL
            .into_iter()
            .filter(|other| *other != self && other.probe(Family::V4).is_ok())
        {
            for family in [Family::V4, Family::V6] {
                other.remove(plan, family)?;
            }
        }
        Ok(())
    }

    fn apply_families(self, plan: &Plan, families: &[Family]) -> anyhow::Result<()> {
        if self == Backend::Nft {
            return nft::install(plan, families).commit();
        }
        for (done, family) in families.iter().enumerate() {
            let applied = self.apply_family(plan, *family);
            if let Err(error) = applied {
                for family in &families[..done] {
                    self.remove(plan, *family)?;
                }
                return Err(error.context(format!(
                    "cannot write the {family} rules; nothing was left behind"
                )));
            }
        }
        Ok(())
    }

    fn apply_family(self, plan: &Plan, family: Family) -> anyhow::Result<()> {
        let present = self.save(family)?;
        let new = if self == Backend::IptablesNft {
            absent(family)?
        } else {
            Vec::new()
        };
        self.restore(
            family,
            &iptables::restore(plan, family, &present, &new),
            &[],
        )
    }

    /// Takes away what any backend (or the one asked for) has put in place; tells which one had. The error says why none of
    /// them works: what is there then stays.
    pub fn remove_everywhere(choice: Choice) -> anyhow::Result<String> {
        let plan = Plan::from_args(&<crate::args::Args as clap::Parser>::parse_from([
            "weft-init",
        ]));
        let (mut removed, mut reasons, mut works) = (Vec::new(), Vec::new(), false);
        for backend in ALL.into_iter().filter(|backend| backend.is(choice)) {
            if let Err(error) = backend.probe(Family::V4) {
                reasons.push(format!("{backend}: {error:#}"));
                continue;
            }
            works = true;
            for family in [Family::V4, Family::V6] {
                if backend.remove(&plan, family)? {
                    removed.push(format!("{backend} {family}"));
                }
            }
        }
        if !works {
            bail!(
                "no way to look for redirection works here: {}",
                reasons.join("; ")
            );
        }
        Ok(if removed.is_empty() {
            "there was none".to_owned()
        } else {
            removed.join(", ")
        })
    }

    fn remove(self, plan: &Plan, family: Family) -> anyhow::Result<bool> {
        if self == Backend::Nft {
            return netlink::delete_if_present(family, nft::TABLE);
        }
        let Ok(present) = self.save(family) else {
            return Ok(false);
        };
        let Some(removal) = iptables::remove(plan, family, &present) else {
            return Ok(false);
        };
        self.restore(family, &removal, &[])?;
        if self == Backend::IptablesNft {
            tidy(family, &present)?;
        }
        Ok(true)
    }

    /// What the nat table holds now, as `iptables-save` says it; empty if there is none.
    pub fn save(self, family: Family) -> anyhow::Result<String> {
        let program = self.program(family, "save");
        let output = Command::new(&program)
            .args(["-t", "nat"])
            .output()
            .with_context(|| format!("cannot run {program}"))?;
        if !output.status.success() {
            bail!(
                "{program}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn restore(self, family: Family, input: &str, options: &[&str]) -> anyhow::Result<()> {
        let program = self.program(family, "restore");
        let mut command = Command::new(&program);
        command.args(["--noflush", "--wait", "10"]).args(options);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(input.as_bytes())
                .with_context(|| format!("{program} does not take its input"))?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "{program}: {}",
                String::from_utf8_lossy(&output.stderr)
                    .trim()
                    .replace('\n', " ")
            );
        }
        Ok(())
    }

    fn program(self, family: Family, verb: &str) -> String {
        let name = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let variant = if self == Backend::IptablesNft {
            "nft"
        } else {
            "legacy"
        };
        format!("{name}-{variant}-{verb}")
    }
}

/// What the first rule would bring into being. `iptables-nft-save` prints an empty nat table even where there is none;
/// only the kernel knows.
fn absent(family: Family) -> anyhow::Result<Vec<Side>> {
    let mut absent = Vec::new();
    for (side, _) in iptables::MADE {
        let present = match side {
            Side::Table => netlink::table_exists(family, "nat")?,
            Side::Chain(name) => netlink::chain_exists(family, "nat", name)?,
        };
        if !present {
            absent.push(side);
        }
    }
    Ok(absent)
}

/// Takes away the empty chains and the empty table that were not there before us. What somebody else has filled since
/// is in use: the kernel refuses to delete it, and that is right.
fn tidy(family: Family, before: &str) -> anyhow::Result<()> {
    let made = iptables::MADE
        .iter()
        .filter(|(_, marker)| iptables::declared(before, marker));
    let made: Vec<Side> = made.map(|(side, _)| *side).collect();
    for side in &made {
        if let Side::Chain(name) = side {
            netlink::delete_chain_if_unused(family, "nat", name)?;
        }
    }
    if made.contains(&Side::Table) && !netlink::table_has_chains(family, "nat")? {
        netlink::delete_if_present(family, "nat")?;
    }
    Ok(())
}
