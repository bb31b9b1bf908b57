//! Just enough of the nf_tables netlink protocol (`linux/netfilter/nf_tables.h`) to write one table in one atomic batch.

use crate::rules::Family;
use anyhow::{Context, bail};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{bind, recv, send, setsockopt, socket, sockopt};
use std::os::fd::{AsRawFd, OwnedFd};

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYS_NFTABLES: u16 = 10;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const NESTED: u16 = 1 << 15;
const REGISTER: u32 = 1;
const RETURN: i32 = -5;
const NAT_RANGE_PROTO_SPECIFIED: u32 = 2; // linux/netfilter/nf_nat.h

/// A part of a rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    MetaIs {
        key: u32,
        value: Vec<u8>,
    },
    NetworkIs {
        offset: u32,
        address: Vec<u8>,
        mask: Vec<u8>,
    },
    PortIn {
        first: u16,
        last: u16,
    },
    Return,
    Redirect(u16),
}

impl Expr {
    pub(crate) const MARK: u32 = 3;
    pub(crate) const OIFNAME: u32 = 7;
    pub(crate) const SKUID: u32 = 10;
    pub(crate) const SKGID: u32 = 11;
    const L4PROTO: u32 = 16;
    pub(crate) const TCP: Expr = Expr::MetaIs {
        key: Expr::L4PROTO,
        value: Vec::new(),
    };
}

/// Messages that take effect together or not at all.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Batch {
    pub(crate) fn new() -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            sequence: 0,
        };
        batch.message(
            BATCH_BEGIN,
            0,
            libc::AF_UNSPEC as u8,
            SUBSYS_NFTABLES,
            |_| {},
        );
        batch
    }

    pub(crate) fn table(&mut self, family: Family, name: &str) {
        self.change(NEWTABLE, libc::NLM_F_CREATE, family, |a| {
            a.text(1, name);
            a.be32(2, 0);
        });
    }

    pub(crate) fn delete_table(&mut self, family: Family, name: &str) {
        self.change(DELTABLE, 0, family, |a| a.text(1, name));
    }

    /// A base chain of type nat.
    pub(crate) fn chain(
        &mut self,
        family: Family,
        table: &str,
        name: &str,
        hook: u32,
        priority: i32,
    ) {
        self.change(NEWCHAIN, libc::NLM_F_CREATE, family, |a| {
            a.text(1, table);
            a.text(3, name);
            a.nest(4, |a| {
                a.be32(1, hook);
                a.be32(2, priority as u32);
            });
            a.be32(5, libc::NF_ACCEPT as u32);
            a.text(7, "nat");
        });
    }

    pub(crate) fn rule(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        exprs: &[Expr],
        comment: &str,
    ) {
        self.change(
            NEWRULE,
            libc::NLM_F_CREATE | libc::NLM_F_APPEND,
            family,
            |a| {
                a.text(1, table);
                a.text(2, chain);
                a.nest(4, |a| exprs.iter().for_each(|expr| expr.write(a)));
                // User data of kind 0 is what `nft list` shows as a comment.
                let mut note = vec![0, comment.len() as u8 + 1];
                note.extend(comment.as_bytes());
                note.push(0);
                a.bytes(7, &note);
            },
        );
    }

    fn change(&mut self, kind: u16, flags: i32, family: Family, write: impl FnOnce(&mut Attrs)) {
        let flags = flags as u16 | libc::NLM_F_ACK as u16;
        self.message(
            SUBSYS_NFTABLES << 8 | kind,
            flags,
            family_number(family),
            0,
            write,
        );
    }

    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        write: impl FnOnce(&mut Attrs),
    ) {
        let start = self.bytes.len();
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes
            .extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        let mut attrs = Attrs(std::mem::take(&mut self.bytes));
        write(&mut attrs);
        self.bytes = attrs.0;
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.sequence += 1;
    }

    /// Hands the batch to the kernel; an error means that nothing of it took effect.
    pub(crate) fn commit(self) -> anyhow::Result<()> {
        match self.submit()? {
            0 => Ok(()),
            error => {
                let error = std::io::Error::from_raw_os_error(error);
                bail!(
                    "nf_tables refused the rules: {error} (NET_ADMIN is needed, and a kernel with nf_tables NAT)"
                )
            }
        }
    }

    /// Hands the batch to the kernel and waits for every answer; tells the first error number, or 0.
    fn submit(mut self) -> anyhow::Result<i32> {
        let expected = self.sequence - 1;
        self.message(BATCH_END, 0, libc::AF_UNSPEC as u8, SUBSYS_NFTABLES, |_| {});
        let socket = open()?;
        send(socket.as_raw_fd(), &self.bytes, MsgFlags::empty())
            .context("cannot send to nf_tables")?;
        let mut answered = 0;
        while answered < expected {
            for error in receive(&socket)?.into_iter().filter_map(Answer::status) {
                if error != 0 {
                    return Ok(-error);
                }
                answered += 1;
            }
        }
        Ok(0)
    }
}

/// Attributes of a message, four-byte aligned.
struct Attrs(Vec<u8>);

impl Attrs {
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Attrs)) {
        let start = self.0.len();
        self.bytes(kind | NESTED, &[]);
        write(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn expr(&mut self, name: &str, write: impl FnOnce(&mut Attrs)) {
        self.nest(1, |a| {
            a.text(1, name);
            a.nest(2, write);
        });
    }

    /// Compares the register: 0 equal, 3 not above, 5 not below.
    fn compare(&mut self, op: u32, value: &[u8]) {
        self.expr("cmp", |a| {
            a.be32(1, REGISTER);
            a.be32(2, op);
            a.nest(3, |a| a.bytes(1, value));
        });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) {
        self.expr("payload", |a| {
            a.be32(1, REGISTER);
            a.be32(2, base);
            a.be32(3, offset);
            a.be32(4, length);
        });
    }
}

impl Expr {
    fn write(&self, a: &mut Attrs) {
        match self {
            Expr::MetaIs { key, value } => {
                a.expr("meta", |a| {
                    a.be32(1, REGISTER);
                    a.be32(2, *key);
                });
                let tcp = [libc::IPPROTO_TCP as u8];
                a.compare(0, if *key == Expr::L4PROTO { &tcp } else { value });
            }
            Expr::NetworkIs {
                offset,
                address,
                mask,
            } => {
                let length = address.len() as u32;
                a.payload(1, *offset, length);
                a.expr("bitwise", |a| {
                    a.be32(1, REGISTER);
                    a.be32(2, REGISTER);
                    a.be32(3, length);
                    a.nest(4, |a| a.bytes(1, mask));
                    a.nest(5, |a| a.bytes(1, &vec![0; address.len()]));
                });
                a.compare(0, address);
            }
            Expr::PortIn { first, last } => {
                a.payload(2, 2, 2);
                if first == last {
                    a.compare(0, &first.to_be_bytes());
                } else {
                    a.compare(5, &first.to_be_bytes());
                    a.compare(3, &last.to_be_bytes());
                }
            }
            Expr::Return => a.expr("immediate", |a| {
                a.be32(1, 0);
                a.nest(2, |a| a.nest(2, |a| a.be32(1, RETURN as u32)));
            }),
            Expr::Redirect(port) => {
                a.expr("immediate", |a| {
                    a.be32(1, REGISTER);
                    a.nest(2, |a| a.bytes(1, &port.to_be_bytes()));
                });
                a.expr("redir", |a| {
                    a.be32(1, REGISTER);
                    a.be32(3, NAT_RANGE_PROTO_SPECIFIED);
                });
            }
        }
    }
}

/// Deletes a table if it is there; tells whether it was.
pub(crate) fn delete_if_present(family: Family, table: &str) -> anyhow::Result<bool> {
    if !table_exists(family, table)? {
        return Ok(false);
    }
    let mut batch = Batch::new();
    batch.delete_table(family, table);
    batch.commit()?;
    Ok(true)
}

/// Is this table there?
pub(crate) fn table_exists(family: Family, table: &str) -> anyhow::Result<bool> {
    exists(family, GETTABLE, |a| a.text(1, table))
}

/// Deletes a chain unless it holds rules.
pub(crate) fn delete_chain_if_unused(
    family: Family,
    table: &str,
    chain: &str,
) -> anyhow::Result<()> {
    let mut batch = Batch::new();
    batch.change(DELCHAIN, 0, family, |a| {
        a.text(1, table);
        a.text(3, chain);
    });
    match batch.submit()? {
        0 | libc::EBUSY | libc::ENOENT => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error))
            .context(format!("cannot delete the empty chain {chain}")),
    }
}

/// Does any chain belong to this table?
pub(crate) fn table_has_chains(family: Family, table: &str) -> anyhow::Result<bool> {
    let mut request = Batch {
        bytes: Vec::new(),
        sequence: 0,
    };
    request.change(GETCHAIN, libc::NLM_F_DUMP, family, |_| {});
    let name = [table.as_bytes(), &[0]].concat();
    let mut found = false;
    let socket = open()?;
    send(socket.as_raw_fd(), &request.bytes, MsgFlags::empty()).context("cannot ask nf_tables")?;
    loop {
        for answer in receive(&socket)? {
            if [libc::NLMSG_DONE, libc::NLMSG_ERROR].contains(&i32::from(answer.kind)) {
                return Ok(found);
            }
            // The table's name is the first attribute of a chain, after four bytes of family header.
            found |= answer.payload.get(8..8 + name.len()) == Some(&name[..]);
        }
    }
}

/// Is this chain there?
pub(crate) fn chain_exists(family: Family, table: &str, chain: &str) -> anyhow::Result<bool> {
    exists(family, GETCHAIN, |a| {
        a.text(1, table);
        a.text(3, chain);
    })
}

fn exists(family: Family, kind: u16, write: impl FnOnce(&mut Attrs)) -> anyhow::Result<bool> {
    let mut request = Batch {
        bytes: Vec::new(),
        sequence: 0,
    };
    request.change(kind, 0, family, write);
    let socket = open()?;
    send(socket.as_raw_fd(), &request.bytes, MsgFlags::empty()).context("cannot ask nf_tables")?;
    loop {
        for answer in receive(&socket)? {
            match answer.status() {
                None => {}
                Some(0) => return Ok(true),
                Some(error) if -error == libc::ENOENT => return Ok(false),
                Some(error) => {
                    return Err(std::io::Error::from_raw_os_error(-error))
                        .context("nf_tables does not answer");
                }
            }
        }
    }
}

/// One message from the kernel.
struct Answer {
    kind: u16,
    payload: Vec<u8>,
}

impl Answer {
    /// 0 or a negative error number, if this is an acknowledgement.
    fn status(self) -> Option<i32> {
        if i32::from(self.kind) != libc::NLMSG_ERROR {
            return None;
        }
        self.payload
            .first_chunk::<4>()
            .map(|code| i32::from_ne_bytes(*code))
    }
}

fn open() -> anyhow::Result<OwnedFd> {
    let kind = (
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    );
    let socket =
        socket(kind.0, kind.1, kind.2, kind.3).context("this kernel has no netfilter netlink")?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("cannot bind a netlink socket")?;
    // The kernel answers at once; the limit is there so that nothing can hang a pod's start.
    setsockopt(
        &socket,
        sockopt::ReceiveTimeout,
        &nix::sys::time::TimeVal::new(5, 0),
    )?;
    setsockopt(&socket, sockopt::RcvBuf, &(1 << 20))?;
    Ok(socket)
}

fn receive(socket: &OwnedFd) -> anyhow::Result<Vec<Answer>> {
    let mut buffer = vec![0u8; 64 * 1024];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())
        .context("nf_tables does not answer")?;
    let mut rest = &buffer[..length];
    let mut answers = Vec::new();
    while let Some(header) = rest.first_chunk::<16>() {
        let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if size < 16 || size > rest.len() {
            bail!("nf_tables sent a message that cannot be read");
        }
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        answers.push(Answer {
            kind,
            payload: rest[16..size].to_vec(),
        });
        rest = &rest[size.next_multiple_of(4).min(rest.len())..];
    }
    Ok(answers)
}

fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    }
}
