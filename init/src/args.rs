//! The command line, parsed into types once; every mistake names its flag.

use crate::backend::Choice;
use clap::Parser;
use ipnet::IpNet;
use std::str::FromStr;
use weft_proxy_api::names;

/// Redirects the TCP traffic of this network namespace into the Weft proxy.
#[derive(Debug, Clone, Parser)]
#[command(name = "weft-init", version)]
pub struct Args {
    /// Port of the proxy for traffic from outside
    #[arg(long, default_value_t = names::ports::INBOUND)]
    pub inbound_port: u16,
    /// Port of the proxy for traffic from inside
    #[arg(long, default_value_t = names::ports::OUTBOUND)]
    pub outbound_port: u16,
    /// Admin port of the proxy; never redirected
    #[arg(long, default_value_t = names::ports::ADMIN)]
    pub admin_port: u16,
    /// User id whose packets are the proxy's own [default: 2102, unless a mark or group is given]
    #[arg(long, value_parser = number)]
    pub proxy_uid: Option<u32>,
    /// Group id whose packets are the proxy's own
    #[arg(long, value_parser = number)]
    pub proxy_gid: Option<u32>,
    /// Mark on the proxy's own packets (for namespaces with a single user id), e.g. 0x539
    #[arg(long, value_parser = number)]
    pub proxy_mark: Option<u32>,
    /// Inbound ports that bypass the proxy, e.g. 22,9000-9100
    #[arg(long, default_value = "", value_parser = ports, hide_default_value = true)]
    pub skip_inbound_ports: PortList,
    /// Outbound ports that bypass the proxy
    #[arg(long, default_value = "", value_parser = ports, hide_default_value = true)]
    pub skip_outbound_ports: PortList,
    /// Destination networks that bypass the proxy, e.g. 169.254.0.0/16,fd00::/8
    #[arg(long, default_value = "", value_parser = subnets, hide_default_value = true)]
    pub skip_subnets: Subnets,
    /// How to write the rules; `auto` takes the first that works
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    pub backend: Choice,
    /// Leave IPv6 alone (its traffic then bypasses the mesh)
    #[arg(long)]
    pub no_ipv6: bool,
    /// Print the rules and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take the rules away again, leaving exactly what was there before
    #[arg(long, conflicts_with = "dry_run")]
    pub remove: bool,
    /// Do not prove that redirection works
    #[arg(long)]
    pub no_verify: bool,
}

/// An inclusive range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below the first.
    pub last: u16,
}

/// A list of port ranges, in order and without overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortList(pub Vec<PortRange>);

/// A list of networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subnets(pub Vec<IpNet>);

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl FromStr for PortRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self {
            first: port(first)?,
            last: port(last)?,
        };
        if range.first > range.last {
            return Err(format!("{text:?} ends before it begins"));
        }
        Ok(range)
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a port (1 to 65535)")),
        Ok(port) => Ok(port),
    }
}

/// Parses `22,9000-9100`; overlapping ranges become one, so that no rule is written twice.
pub fn ports(text: &str) -> Result<PortList, String> {
    let mut ranges = items(text)
        .map(str::parse)
        .collect::<Result<Vec<PortRange>, _>>()?;
    ranges.sort();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(previous) if u32::from(range.first) <= u32::from(previous.last) + 1 => {
                previous.last = previous.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    Ok(PortList(merged))
}

/// Parses `10.0.0.0/8,fd00::/8`; a bare address is a network of one.
pub fn subnets(text: &str) -> Result<Subnets, String> {
    let parse = |item: &str| {
        let network = item
            .parse::<IpNet>()
            .or_else(|_| item.parse::<std::net::IpAddr>().map(IpNet::from));
        network
            .map(|network| network.trunc())
            .map_err(|_| format!("{item:?} is not a network such as 10.0.0.0/8"))
    };
    items(text)
        .map(parse)
        .collect::<Result<_, _>>()
        .map(Subnets)
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is not a number"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn port_lists() {
        let range = |first, last| PortRange { first, last };
        for (text, expected) in [
            ("", vec![]),
            ("22", vec![range(22, 22)]),
            (" 9000-9100 , 22,", vec![range(22, 22), range(9000, 9100)]),
            ("10-20,15-30,31", vec![range(10, 31)]),
            ("65535,65534", vec![range(65534, 65535)]),
        ] {
            assert_eq!(ports(text), Ok(PortList(expected)), "{text}");
        }
        for bad in ["0", "65536", "a", "9-8", "1-2-3", "-5", "22;rm"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks() {
        let list = subnets("10.1.2.3/8, fd00::1/8,192.0.2.7").unwrap().0;
        let text: Vec<_> = list.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"]);
        assert!(subnets("10.0.0.0/33").is_err());
        assert!(subnets("example").is_err());
    }

    #[test]
    fn mistakes_name_the_flag() {
        let error = Args::try_parse_from(["weft-init", "--skip-inbound-ports", "70000"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--skip-inbound-ports") && error.contains("70000"),
            "{error}"
        );
        assert_eq!(
            Args::try_parse_from(["weft-init", "--proxy-mark", "0x539"])
                .unwrap()
                .proxy_mark,
            Some(0x539)
        );
    }
}
