//! A new root without a gap: three steps, each of them a change of files in the state folder, which a running controller takes
//! up by itself. Between two steps everybody must have heard of the one before.
//!
//! ```text
//! begin   trusted: old, new   signs: old     wait until every proxy has the new bundle
//! switch  trusted: new, old   signs: new     wait until every proxy has a certificate of the new root (they ask by themselves)
//! finish  trusted: new        signs: new     what the old root signed is refused
//! ```

use super::{Held, certificates, make};
use crate::state::{CA_CERT, CA_KEY, CA_NEXT_CERT, CA_NEXT_KEY, Secrecy, StateDir, TRUST_ANCHORS};
use anyhow::{Context, Result, bail};

/// Makes a new root and lets it be trusted beside the old one.
pub fn begin(state: &StateDir, trust_domain: &str) -> Result<()> {
    let _lock = state.lock()?;
    let held = Held::open(state)?;
    if state.read(CA_NEXT_CERT, Secrecy::Public)?.is_some() || held.roots.len() > 1 {
        bail!("a rotation is under way: go on with switch or finish");
    }
    let made = make(trust_domain)?;
    let trusted = read(state, TRUST_ANCHORS)?;
    state.write(CA_NEXT_KEY, Secrecy::Private, &made.key)?;
    state.write(CA_NEXT_CERT, Secrecy::Public, &(made.issuer + &made.root))?;
    state.write(
        TRUST_ANCHORS,
        Secrecy::Public,
        &(ended(trusted) + &made.root),
    )
}

/// Signs with the new root from now on. May be said again if it was cut short.
pub fn switch(state: &StateDir) -> Result<()> {
    let _lock = state.lock()?;
    let next = state.read(CA_NEXT_CERT, Secrecy::Public)?;
    let next = next.context("no rotation was begun")?;
    let key = state.read(CA_NEXT_KEY, Secrecy::Private)?;
    let key = key.with_context(|| format!("{CA_NEXT_KEY} is missing"))?;
    let trusted = blocks(&read(state, TRUST_ANCHORS)?);
    let root = blocks(&next).pop().unwrap_or_default();
    if !trusted.contains(&root) {
        bail!("{TRUST_ANCHORS} does not list the new root: nobody would trust what it signs");
    }
    // The first root is the one that signs: whoever has a certificate of another one asks for a new one.
    let others = trusted.into_iter().filter(|other| *other != root);
    let trusted: String = [root.clone()].into_iter().chain(others).collect();
    state.write(CA_KEY, Secrecy::Private, &key)?;
    state.write(CA_CERT, Secrecy::Public, &next)?;
    state.write(TRUST_ANCHORS, Secrecy::Public, &trusted)?;
    Held::open(state)?;
    state.remove(CA_NEXT_CERT)?;
    state.remove(CA_NEXT_KEY)
}

/// Trusts only the root that signs.
pub fn finish(state: &StateDir) -> Result<()> {
    let _lock = state.lock()?;
    if state.read(CA_NEXT_CERT, Secrecy::Public)?.is_some() {
        bail!("the new root does not sign yet: switch first");
    }
    let held = Held::open(state)?;
    if held.roots.len() < 2 {
        bail!("there is no other root to drop");
    }
    let root = blocks(&read(state, CA_CERT)?).pop().unwrap_or_default();
    state.write(TRUST_ANCHORS, Secrecy::Public, &root)
}

fn read(state: &StateDir, name: &str) -> Result<String> {
    let text = state.read(name, Secrecy::Public)?;
    let text = text.with_context(|| format!("{name} is missing"))?;
    certificates(&text, name).map(|_| text)
}

fn ended(text: String) -> String {
    match text.ends_with('\n') {
        true => text,
        false => text + "\n",
    }
}

/// The certificates of a file in PEM, each as it is written.
fn blocks(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let each = pem.split_inclusive(END);
    let each = each.filter_map(|block| block.find("-----BEGIN").map(|at| &block[at..]));
    each.map(|block| format!("{}\n", block.replace("\r\n", "\n")))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Ca, Leaf};
    use super::*;
    use std::time::{Duration, SystemTime};
    use weft_proxy_api::identity::SpiffeId;

    const DOMAIN: &str = "cluster.local";

    fn leaf(ca: &Ca) -> Leaf {
        let id = SpiffeId::new(DOMAIN, "default", "web").unwrap();
        let life = Duration::from_secs(60);
        ca.issue_own(&id, life, SystemTime::now()).unwrap().0
    }

    /// Is the leaf's issuer signed by one of the roots?
    fn trusts(ca: &Ca, leaf: &Leaf) -> Vec<bool> {
        let (_, issuer) = x509_parser::parse_x509_certificate(&leaf.chain[1]).unwrap();
        let signed = |root: &rustls_pki_types::CertificateDer<'_>| {
            let (_, root) = x509_parser::parse_x509_certificate(root).unwrap();
            issuer.verify_signature(Some(root.public_key())).is_ok()
        };
        ca.roots().iter().map(signed).collect()
    }

    #[test]
    fn a_root_is_added_takes_over_and_the_old_one_goes() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let ca = Ca::open_or_create(&state, DOMAIN).unwrap();
        let old = leaf(&ca);
        assert!(!ca.reload(&state).unwrap(), "nothing is different");
        assert_eq!(trusts(&ca, &old), [true]);

        begin(&state, DOMAIN).unwrap();
        assert!(ca.reload(&state).unwrap());
        assert_eq!(trusts(&ca, &old), [true, false]);
        assert_eq!(trusts(&ca, &leaf(&ca)), [true, false], "the old one signs");

        switch(&state).unwrap();
        assert!(ca.reload(&state).unwrap());
        assert_eq!(trusts(&ca, &old), [false, true], "the new one is first");
        assert_eq!(trusts(&ca, &leaf(&ca)), [true, false], "and signs");

        finish(&state).unwrap();
        assert!(ca.reload(&state).unwrap());
        assert_eq!(trusts(&ca, &old), [false]);
        assert_eq!(trusts(&ca, &leaf(&ca)), [true]);
        assert_eq!(
            trusts(&Ca::open_or_create(&state, DOMAIN).unwrap(), &leaf(&ca)),
            [true]
        );
    }

    #[test]
    fn steps_out_of_order_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let ca = Ca::open_or_create(&state, DOMAIN).unwrap();
        for refused in [switch(&state), finish(&state)] {
            assert!(refused.is_err());
        }
        assert!(!ca.reload(&state).unwrap());
        begin(&state, DOMAIN).unwrap();
        for refused in [begin(&state, DOMAIN), finish(&state)] {
            assert!(refused.is_err());
        }
        switch(&state).unwrap();
        for refused in [begin(&state, DOMAIN), switch(&state)] {
            assert!(refused.is_err());
        }
    }

    #[test]
    fn files_that_cannot_be_used_leave_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let ca = Ca::open_or_create(&state, DOMAIN).unwrap();
        let before = ca.roots();
        state
            .write(TRUST_ANCHORS, Secrecy::Public, "no certificate")
            .unwrap();
        assert!(ca.reload(&state).is_err());
        assert_eq!(ca.roots(), before);
        leaf(&ca);
    }
}
