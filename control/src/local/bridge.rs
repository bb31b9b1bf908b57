//! A network of the node's own: a bridge, a cable for each pod, Service rules. Runs inside the sandbox only.

use std::process::Command;

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::addresses::{
    NODE_V4, NODE_V6, POD_BITS_V4, POD_BITS_V6, PodAddresses, SERVICE_BITS_V4, SERVICE_BITS_V6,
    SERVICES_V4, SERVICES_V6,
};
use super::children::Children;
use super::nat::{self, Forward};
use super::sys::sysctl;

const NAME: &str = "weft0";
/// Name of the pod's end of its cable.
pub(crate) const POD_LINK: &str = "eth0";

/// The node's end of the network.
#[derive(Clone)]
pub(crate) struct Bridge {
    handle: Handle,
    bridge: u32,
    /// This kernel has IPv6.
    pub(crate) v6: bool,
    tool: Option<Tool>,
}

/// What loads rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Nft,
    Iptables,
}

impl Bridge {
    /// Bridge, forwarding, routes for Services.
    pub(crate) async fn set_up() -> Result<Self> {
        forwarding();
        let handle = handle()?;
        link_up(&handle, "lo").await?;
        handle
            .link()
            .add(LinkBridge::new(NAME).build())
            .execute()
            .await
            .context("cannot make the bridge")?;
        let bridge = index(&handle, NAME).await?;
        handle
            .address()
            .add(bridge, NODE_V4.into(), POD_BITS_V4)
            .execute()
            .await
            .context("cannot address the bridge")?;
        let v6 = handle
            .address()
            .add(bridge, NODE_V6.into(), POD_BITS_V6)
            .execute()
            .await
            .is_ok();
        // A Service without rules must still pass the forward hook, where it is refused politely.
        let services = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(SERVICES_V4, SERVICE_BITS_V4)
            .output_interface(bridge)
            .build();
        handle
            .route()
            .add(services)
            .execute()
            .await
            .context("cannot route Service addresses")?;
        if v6 {
            let services = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(SERVICES_V6, SERVICE_BITS_V6)
                .output_interface(bridge)
                .build();
            handle
                .route()
                .add(services)
                .execute()
                .await
                .context("cannot route Service addresses (IPv6)")?;
        }
        Ok(Self {
            handle,
            bridge,
            v6,
            tool: find_tool(),
        })
    }

    /// A cable from the bridge into the namespace of that process.
    pub(crate) async fn plug(&self, name: &str, pid: i32) -> Result<()> {
        let peer = LinkUnspec::new_with_name(POD_LINK)
            .setns_by_pid(pid.cast_unsigned())
            .build();
        let cable = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name.to_owned())
            .controller(self.bridge)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.handle
            .link()
            .add(cable)
            .execute()
            .await
            .context("cannot make a cable for the pod")
    }

    /// Replace all Service rules.
    pub(crate) async fn load(
        &self,
        children: &Children,
        forwards: &[Forward],
        lock_dir: &std::path::Path,
    ) -> Result<()> {
        match self.tool {
            Some(Tool::Nft) => {
                children
                    .run(
                        Command::new("nft").args(["-f", "-"]),
                        nat::nft(forwards).as_bytes(),
                    )
                    .await
            }
            Some(Tool::Iptables) => {
                let families: &[_] = if self.v6 {
                    &[("iptables-restore", false), ("ip6tables-restore", true)]
                } else {
                    &[("iptables-restore", false)]
                };
                for (program, v6) in families {
                    let mut command = Command::new(program);
                    command.env("XTABLES_LOCKFILE", lock_dir.join("xtables.lock"));
                    children
                        .run(&mut command, nat::iptables(forwards, *v6).as_bytes())
                        .await?;
                }
                Ok(())
            }
            None => bail!(
                "neither nft nor iptables-restore is installed: Service addresses work for meshed pods only"
            ),
        }
    }
}

/// The pod's end: called inside the pod's namespace.
pub(crate) async fn set_up_pod(addresses: PodAddresses) -> Result<()> {
    let handle = handle()?;
    link_up(&handle, "lo").await?;
    let link = index(&handle, POD_LINK).await?;
    handle
        .address()
        .add(link, addresses.v4.into(), 32)
        .execute()
        .await
        .context("cannot give the pod its address")?;
    let v6 = handle
        .address()
        .add(link, addresses.v6.into(), 128)
        .execute()
        .await
        .is_ok();
    link_up(&handle, POD_LINK).await?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(NODE_V4)
        .output_interface(link)
        .onlink()
        .build();
    handle
        .route()
        .add(route)
        .execute()
        .await
        .context("cannot give the pod its route")?;
    if v6 {
        let route = RouteMessageBuilder::<Ipv6Addr>::new()
            .gateway(NODE_V6)
            .output_interface(link)
            .onlink()
            .build();
        handle
            .route()
            .add(route)
            .execute()
            .await
            .context("cannot give the pod its IPv6 route")?;
    }
    Ok(())
}

/// Settings of a pod's network namespace.
pub(crate) fn pod_settings() {
    quiet_v6();
    // Any user may bind port 80, as in a container.
    sysctl("net/ipv4/ip_unprivileged_port_start", "0");
    sysctl("net/ipv4/ping_group_range", "0 2147483647");
}

fn forwarding() {
    quiet_v6();
    sysctl("net/ipv4/ip_forward", "1");
    sysctl("net/ipv6/conf/all/forwarding", "1");
    // With br_netfilter the bridge itself would translate Service addresses and hand a pod's packet to another pod (or
    // drop what should come back to the same one), past the node's IP layer.
    for family in ["iptables", "ip6tables", "arptables"] {
        sysctl(&format!("net/bridge/bridge-nf-call-{family}"), "0");
    }
    for scope in ["all", "default"] {
        sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0");
        // Pod to pod leaves where it came from; no advice about shorter ways, there must be none.
        sysctl(&format!("net/ipv4/conf/{scope}/send_redirects"), "0");
    }
}

/// No duplicate detection, no router advertisements: addresses are usable at once.
fn quiet_v6() {
    for scope in ["all", "default"] {
        sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "0");
        sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0");
        sysctl(&format!("net/ipv6/conf/{scope}/accept_ra"), "0");
        sysctl(&format!("net/ipv6/conf/{scope}/accept_redirects"), "0");
        sysctl(&format!("net/ipv4/conf/{scope}/accept_redirects"), "0");
        sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0");
    }
}

fn handle() -> Result<Handle> {
    let (connection, handle, _) =
        rtnetlink::new_connection().context("cannot talk to the kernel about networks")?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn index(handle: &Handle, name: &str) -> Result<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await? {
        Some(link) => Ok(link.header.index),
        None => bail!("there is no link {name}"),
    }
}

async fn link_up(handle: &Handle, name: &str) -> Result<()> {
    let index = index(handle, name).await?;
    let up = LinkUnspec::new_with_index(index).up().build();
    handle
        .link()
        .set(up)
        .execute()
        .await
        .with_context(|| format!("cannot switch on {name}"))
}

fn find_tool() -> Option<Tool> {
    let there = |program: &str| super::programs::in_path(program).is_some();
    match () {
        () if there("nft") => Some(Tool::Nft),
        () if there("iptables-restore") => Some(Tool::Iptables),
        () => None,
    }
}
