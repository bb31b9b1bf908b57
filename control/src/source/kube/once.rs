//! The objects of an API server read a single time: for whoever asks, not for whoever follows.

use super::super::Event;
use super::feed::Feed;
use super::kinds::{WATCHED, Watched, watched};
use super::ledger::Ledger;
use super::{PAGE, json, served};
use crate::manifest::ObjectKey;
use crate::smi::Groups;
use anyhow::{Context, Result};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::PartialObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

/// What tells one state of an object from another: its uid and generation.
pub type Generations = BTreeMap<ObjectKey, (String, i64)>;

/// Everything that is watched, as events for an index. A kind that is not served has no objects.
pub async fn read(client: &Client, groups: Groups) -> Result<Vec<Event>> {
    read_all(client, &Arc::default(), watched(groups)).await
}

/// The kinds that are wanted; the ledger then knows what their status says.
pub async fn read_into(
    client: &Client,
    ledger: &Arc<Ledger>,
    wanted: impl Fn(&Watched) -> bool,
) -> Result<Vec<Event>> {
    let kinds = WATCHED.iter().filter(|watched| wanted(watched));
    read_all(client, ledger, kinds).await
}

async fn read_all(
    client: &Client,
    ledger: &Arc<Ledger>,
    kinds: impl Iterator<Item = &'static Watched>,
) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for watched in kinds {
        let what = || format!("cannot read {}", watched.resource());
        let Some(resource) = served(client, watched).await.with_context(what)? else {
            continue;
        };
        let mut feed = Feed::new(watched, ledger.clone());
        feed.begin();
        for object in list(client, &resource).await.with_context(what)? {
            feed.apply(json(&resource, object), &mut events);
        }
        feed.end(Instant::now(), &mut events);
    }
    Ok(events)
}

async fn list(client: &Client, resource: &ApiResource) -> kube::Result<Vec<DynamicObject>> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&params).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// The objects of every kind that has generations, as they are now.
pub async fn generations(client: &Client) -> Result<Generations> {
    let mut all = Generations::new();
    for watched in WATCHED.iter().filter(|watched| watched.custom) {
        let Some(resource) = served(client, watched).await? else {
            continue;
        };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let listed = api.list_metadata(&ListParams::default()).await?;
        all.extend(listed.items.into_iter().filter_map(|it| state(watched, it)));
    }
    Ok(all)
}

fn state(
    watched: &Watched,
    it: PartialObjectMeta<DynamicObject>,
) -> Option<(ObjectKey, (String, i64))> {
    let meta = it.metadata;
    let kind = crate::describe::kind(watched.kind)?;
    let key = ObjectKey::new(kind, &meta.namespace?, &meta.name?);
    Some((key, (meta.uid?, meta.generation?)))
}

/// Was each of these states seen, or a later one; and is nothing known that is gone?
pub fn has_seen(ledger: &Ledger, written: &Generations) -> bool {
    let seen: Generations = ledger
        .all()
        .into_iter()
        .map(|(key, entry)| (key, (entry.uid, entry.generation)))
        .collect();
    let is_there = |(key, (uid, generation)): (&ObjectKey, &(String, i64))| {
        seen.get(key)
            .is_some_and(|(own, at)| own == uid && at >= generation)
    };
    written.iter().all(is_there) && seen.keys().all(|key| written.contains_key(key))
}
