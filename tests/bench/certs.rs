//! Certificates for the peers that do not make their own: root, issuer, leaf, all ECDSA P-256, as deep a chain as the mesh has.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::path::Path;

/// Name in the leaf.
pub(crate) const NAME: &str = "mesh.bench";
/// Root.
pub(crate) const ROOT: &str = "root.pem";
/// Leaf and issuer.
pub(crate) const CHAIN: &str = "chain.pem";
/// Key of the leaf.
pub(crate) const KEY: &str = "key.pem";
/// Chain and key in one file, as HAProxy wants them.
pub(crate) const BOTH: &str = "both.pem";

pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    let authority = || {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "bench");
        params
    };
    let (root_key, issuer_key, key) = (
        KeyPair::generate()?,
        KeyPair::generate()?,
        KeyPair::generate()?,
    );
    let (root, mut middle) = (authority(), authority());
    middle
        .distinguished_name
        .push(rcgen::DnType::CommonName, "issuer");
    let mut leaf = CertificateParams::new(vec![NAME.to_owned()])?;
    leaf.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let issuer = middle.signed_by(&issuer_key, &Issuer::from_params(&root, &root_key))?;
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&middle, &issuer_key))?;
    let chain = leaf.pem() + &issuer.pem();
    std::fs::write(folder.join(ROOT), root.self_signed(&root_key)?.pem())?;
    std::fs::write(folder.join(BOTH), format!("{chain}{}", key.serialize_pem()))?;
    std::fs::write(folder.join(CHAIN), chain)?;
    std::fs::write(folder.join(KEY), key.serialize_pem())?;
    Ok(())
}
