//! The certificate authority in a Secret: made by whichever replica comes first, used by all.
//!
//! The Secret holds the very files of a state folder, and is opened through one that lives as long as the controller: a
//! folder of its own, readable by nobody else.

use crate::ca::Ca;
use crate::state::{CA_CERT, CA_KEY, Secrecy, StateDir, TRUST_ANCHORS};
use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use std::collections::BTreeMap;

/// Name of the Secret.
pub const CA_SECRET: &str = "weft-ca";
/// Replicas may make it and delete it at the same moment; more often than this it is no race.
const ATTEMPTS: usize = 5;

const FILES: [(&str, Secrecy); 3] = [
    (CA_KEY, Secrecy::Private),
    (TRUST_ANCHORS, Secrecy::Public),
    // Last: without it an authority does not count as made.
    (CA_CERT, Secrecy::Public),
];

/// Fills a state folder with the authority of the Secret, which is made where there is none.
pub async fn fill(
    client: Client,
    namespace: &str,
    state: &StateDir,
    trust_domain: &str,
) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let whole = || format!("the Secret {namespace}/{CA_SECRET}");
    for _ in 0..ATTEMPTS {
        if let Some(secret) = api
            .get_opt(CA_SECRET)
            .await
            .with_context(|| format!("cannot read {}", whole()))?
        {
            return unpack(&secret, state).with_context(whole);
        }
        match api
            .create(&PostParams::default(), &make(trust_domain)?)
            .await
        {
            Ok(secret) => {
                tracing::info!("a new certificate authority is kept in {}", whole());
                return unpack(&secret, state).with_context(whole);
            }
            // Another replica was faster: its authority counts.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make {}", whole())),
        }
    }
    bail!("{} comes and goes", whole())
}

/// A new authority as a Secret.
fn make(trust_domain: &str) -> Result<Secret> {
    let folder = tempfile::tempdir()?;
    let state = StateDir::open(folder.path())?;
    Ca::open_or_create(&state, trust_domain)?;
    let mut data = BTreeMap::new();
    for (name, secrecy) in FILES {
        let text = state.read(name, secrecy)?.unwrap_or_default();
        data.insert(name.to_owned(), ByteString(text.into_bytes()));
    }
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(CA_SECRET.into()),
            ..ObjectMeta::default()
        },
        data: Some(data),
        type_: Some("Opaque".into()),
        ..Secret::default()
    })
}

fn unpack(secret: &Secret, state: &StateDir) -> Result<()> {
    for (name, secrecy) in FILES {
        let data = secret.data.as_ref().and_then(|data| data.get(name));
        let bytes = &data.ok_or_else(|| anyhow!("{name} is missing"))?.0;
        let text = std::str::from_utf8(bytes).map_err(|_| anyhow!("{name} is not PEM"))?;
        state.write(name, secrecy, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_authority_survives_the_way_through_a_secret() {
        let secret = make("cluster.local").unwrap();
        let roots: Vec<_> = [(); 2]
            .map(|()| {
                let folder = tempfile::tempdir().unwrap();
                let state = StateDir::open(folder.path()).unwrap();
                unpack(&secret, &state).unwrap();
                Ca::open_or_create(&state, "cluster.local").unwrap().roots()
            })
            .into();
        assert_eq!(roots[0], roots[1]);
    }

    #[test]
    fn a_secret_that_is_not_ours_says_what_is_missing() {
        let (folder, mut secret) = (tempfile::tempdir().unwrap(), make("cluster.local").unwrap());
        let state = StateDir::open(folder.path()).unwrap();
        secret.data.as_mut().unwrap().remove(TRUST_ANCHORS);
        let error = unpack(&secret, &state).unwrap_err().to_string();
        assert_eq!(error, "trust-anchors.pem is missing");
    }
}
