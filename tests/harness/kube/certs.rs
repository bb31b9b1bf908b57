//! Keys and certificates of the API server, all made for one case.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use std::path::Path;

/// A certificate (or public key) and its key, by the names of their files.
pub(super) struct Files {
    pub cert: &'static str,
    pub key: &'static str,
}

/// Who signs servers and clients.
pub(super) const CA: &str = "ca.crt";
/// The API server.
pub(super) const SERVER: Files = Files {
    cert: "server.crt",
    key: "server.key",
};
/// Who signs the API server's calls to aggregated servers.
pub(super) const FRONT_CA: &str = "front-ca.crt";
/// What the API server shows to aggregated servers.
pub(super) const FRONT: Files = Files {
    cert: "front.crt",
    key: "front.key",
};
/// Its name.
pub(super) const FRONT_NAME: &str = "front-proxy-client";
/// Signs the tokens of service accounts.
pub(super) const ACCOUNTS: Files = Files {
    cert: "accounts.pub",
    key: "accounts.key",
};
/// The kubeconfig of somebody who may do everything.
pub(super) const KUBECONFIG: &str = "admin.kubeconfig";

const ADMIN: Files = Files {
    cert: "admin.crt",
    key: "admin.key",
};

/// Writes all of it into a folder.
pub(super) fn write(folder: &Path, port: u16) -> Result<()> {
    let ca = Authority::new("ca")?;
    let front = Authority::new("front-ca")?;
    std::fs::write(folder.join(CA), &ca.pem)?;
    std::fs::write(folder.join(FRONT_CA), &front.pem)?;
    let names = ["localhost", "127.0.0.1", "kubernetes.default.svc"].map(String::from);
    let server = CertificateParams::new(names)?;
    ca.sign(folder, &SERVER, server, "kube-apiserver", None)?;
    let client = CertificateParams::default();
    ca.sign(
        folder,
        &ADMIN,
        client.clone(),
        "admin",
        Some("system:masters"),
    )?;
    front.sign(folder, &FRONT, client, FRONT_NAME, None)?;
    let accounts = KeyPair::generate()?;
    std::fs::write(folder.join(ACCOUNTS.cert), accounts.public_key_pem())?;
    std::fs::write(folder.join(ACCOUNTS.key), accounts.serialize_pem())?;
    let user = format!(
        "{{ client-certificate: {:?}, client-key: {:?} }}",
        folder.join(ADMIN.cert),
        folder.join(ADMIN.key)
    );
    let url = format!("https://127.0.0.1:{port}");
    let text = kubeconfig(&url, &folder.join(CA), &user);
    Ok(std::fs::write(folder.join(KUBECONFIG), text)?)
}

/// A kubeconfig for a user given as a YAML map.
pub(super) fn kubeconfig(url: &str, ca: &Path, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: case\n\
         clusters: [{{ name: case, cluster: {{ server: {url:?}, certificate-authority: {ca:?} }} }}]\n\
         users: [{{ name: case, user: {user} }}]\n\
         contexts: [{{ name: case, context: {{ cluster: case, user: case }} }}]\n"
    )
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params.distinguished_name = named(name, None);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    fn sign(
        &self,
        folder: &Path,
        files: &Files,
        mut params: CertificateParams,
        name: &str,
        group: Option<&str>,
    ) -> Result<()> {
        params.distinguished_name = named(name, group);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        std::fs::write(folder.join(files.cert), cert.pem())?;
        Ok(std::fs::write(folder.join(files.key), key.serialize_pem())?)
    }
}

fn named(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    if let Some(group) = group {
        named.push(DnType::OrganizationName, group);
    }
    named
}
