//! What is to be steered, as plain data that every backend can render. Pure.

use crate::args::{Args, PortList, PortRange};
use ipnet::IpNet;
use std::fmt;
use weft_proxy_api::names;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Everything that is to be steered, for both families.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Port that takes what comes from outside.
    pub inbound_port: u16,
    /// Port that takes what comes from inside.
    pub outbound_port: u16,
    /// How the proxy's own packets are told apart; any one is enough.
    pub own: Vec<Own>,
    skip_inbound: Vec<PortRange>,
    skip_outbound: Vec<PortRange>,
    skip_subnets: Vec<IpNet>,
}

/// A property of the proxy's own packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Sent by this user.
    Uid(u32),
    /// Sent by this group.
    Gid(u32),
    /// Carries this mark.
    Mark(u32),
}

/// Where a chain is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Packets from outside.
    Prerouting,
    /// Packets made here.
    Output,
}

/// One chain, entered from one hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where it is entered.
    pub hook: Hook,
    /// What it does, in order.
    pub rules: Vec<Rule>,
}

/// One rule: TCP packets for which everything in `when` holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Why it is there.
    pub why: &'static str,
    /// The condition.
    pub when: When,
    /// What happens.
    pub action: Action,
}

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// Every packet.
    Always,
    /// The proxy's own packets.
    Own(Own),
    /// Leaves through the loopback interface.
    Loopback,
    /// Goes to this network.
    To(IpNet),
    /// Goes to one of these ports.
    Ports(Vec<PortRange>),
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leaves the packet alone.
    Return,
    /// Sends it to this local port.
    Redirect(u16),
}

/// Chain for packets from outside.
pub const INBOUND_CHAIN: &str = "WEFT_INBOUND";
/// Chain for packets from inside.
pub const OUTBOUND_CHAIN: &str = "WEFT_OUTBOUND";

impl Plan {
    /// What the arguments ask for.
    pub fn from_args(args: &Args) -> Self {
        let mut own: Vec<Own> = Vec::new();
        own.extend(args.proxy_mark.map(Own::Mark));
        own.extend(args.proxy_gid.map(Own::Gid));
        own.extend(args.proxy_uid.map(Own::Uid));
        if own.is_empty() {
            own.push(Own::Uid(names::PROXY_UID));
        }
        let PortList(skip_inbound) = &args.skip_inbound_ports;
        Self {
            inbound_port: args.inbound_port,
            outbound_port: args.outbound_port,
            own,
            // Probes and scrapes reach the admin port itself; the proxy never forwards to it.
            skip_inbound: std::iter::once(args.admin_port.into())
                .chain(skip_inbound.iter().copied())
                .collect(),
            skip_outbound: args.skip_outbound_ports.0.clone(),
            skip_subnets: args.skip_subnets.0.clone(),
        }
    }

    /// The two chains of a family.
    pub fn chains(&self, family: Family) -> [Chain; 2] {
        [self.inbound(), self.outbound(family)]
    }

    fn inbound(&self) -> Chain {
        let skip = Rule::skip(
            "the admin port, and ports that bypass the proxy",
            When::Ports(self.skip_inbound.clone()),
        );
        let rules = vec![
            skip,
            Rule::redirect("everything else from outside", self.inbound_port),
        ];
        Chain {
            name: INBOUND_CHAIN,
            hook: Hook::Prerouting,
            rules,
        }
    }

    fn outbound(&self, family: Family) -> Chain {
        let own = self.own.iter().map(|own| {
            Rule::skip(
                "the proxy's own packets must not come back",
                When::Own(*own),
            )
        });
        let mut rules: Vec<Rule> = own.collect();
        rules.push(Rule::skip(
            "containers of a pod talk among themselves",
            When::Loopback,
        ));
        let networks = self
            .skip_subnets
            .iter()
            .filter(|network| family.has(network));
        rules
            .extend(networks.map(|network| {
                Rule::skip("a network that bypasses the proxy", When::To(*network))
            }));
        if !self.skip_outbound.is_empty() {
            rules.push(Rule::skip(
                "ports that bypass the proxy",
                When::Ports(self.skip_outbound.clone()),
            ));
        }
        rules.push(Rule::redirect(
            "everything else from inside",
            self.outbound_port,
        ));
        Chain {
            name: OUTBOUND_CHAIN,
            hook: Hook::Output,
            rules,
        }
    }
}

impl Rule {
    fn skip(why: &'static str, when: When) -> Self {
        Self {
            why,
            when,
            action: Action::Return,
        }
    }

    fn redirect(why: &'static str, port: u16) -> Self {
        Self {
            why,
            when: When::Always,
            action: Action::Redirect(port),
        }
    }
}

impl Family {
    /// Does the network belong to this family?
    pub fn has(self, network: &IpNet) -> bool {
        matches!(
            (self, network),
            (Family::V4, IpNet::V4(_)) | (Family::V6, IpNet::V6(_))
        )
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

impl fmt::Display for PortRange {
    /// `22` or `9000-9100`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.first != self.last {
            write!(f, "-{}", self.last)
        } else {
            Ok(())
        }
    }
}

/// `IPv4 and IPv6`.
pub fn join(families: &[Family]) -> String {
    families
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" and ")
}
