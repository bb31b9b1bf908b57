//! IdentityBindings (D14): whom one describes as a caller, and whose pods as a destination. The schemes add up; none of
//! them reaches beyond the namespace of the binding.

use super::pod::{account_identity, is_reachable};
use super::world::{Reader, selects};
use crate::manifest::workload::Pod;
use crate::smi::binding::IdentityBinding;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::policy::inbound::Source;

/// The callers a binding describes.
pub fn sources(reader: &Reader<'_>, binding: &IdentityBinding) -> Vec<Source> {
    let namespace = &binding.metadata.namespace;
    let account = binding.account.as_ref();
    let anywhere = account
        .and_then(|name| account_identity(reader, namespace, name))
        .into_iter()
        .chain(identities(reader, binding))
        .map(|identity| Source {
            identity,
            addresses: None,
        });
    anywhere.chain(labelled(reader, binding)).collect()
}

/// Is it a pod of this binding, as a destination?
pub fn covers(reader: &Reader<'_>, binding: &IdentityBinding, pod: &Pod) -> bool {
    let namespace = &binding.metadata.namespace;
    if *namespace != pod.metadata.namespace {
        return false;
    }
    let account = pod.spec.account();
    let by_label = |labels| selects(labels, &pod.metadata.labels);
    let own = account_identity(reader, namespace, account);
    binding.account.as_deref() == Some(account)
        || binding.labels.as_ref().is_some_and(by_label)
        || own.is_some_and(|own| identities(reader, binding).contains(&own))
}

/// The ids that a workload can prove. One of our trust domain that names another namespace is not the binding's to give.
fn identities(reader: &Reader<'_>, binding: &IdentityBinding) -> Vec<SpiffeId> {
    let ours = |id: &SpiffeId| id.trust_domain() == reader.mesh().trust_domain;
    let ids = binding.identities.iter().filter_map(|id| id.parse().ok());
    ids.filter(|id| !ours(id) || id.namespace() == binding.metadata.namespace)
        .collect()
}

/// Labels are no identity: who has them must prove its account, and call from an address of a pod that has them.
fn labelled(reader: &Reader<'_>, binding: &IdentityBinding) -> Vec<Source> {
    let namespace = &binding.metadata.namespace;
    let mut addresses: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
    let labels = binding.labels.as_ref();
    let pods = labels.map(|labels| reader.pods_with(namespace, labels));
    for pod in pods.into_iter().flatten().filter(|pod| is_reachable(pod)) {
        let of_account = addresses.entry(pod.spec.account()).or_default();
        of_account.extend(pod.status.ips());
    }
    let source = |(account, addresses): (&str, BTreeSet<IpAddr>)| {
        Some(Source {
            identity: account_identity(reader, namespace, account)?,
            addresses: Some(addresses.into_iter().collect()),
        })
    };
    addresses.into_iter().filter_map(source).collect()
}
