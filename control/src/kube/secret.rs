//! The certificate authority in a Secret: made by whichever replica comes first, used by all.
//!
//! The Secret holds the very files of a state folder, and is opened through one that lives as long as the controller: a
//! folder of its own, readable by nobody else. Every replica follows the Secret ([`follow`]); who replaces the root writes
//! there ([`change`]), and names the version that was read, so that of two who do it at once one begins anew.

use crate::ca::Ca;
use crate::source::kube::WATCH_SECONDS;
use crate::source::kube::pause::Pause;
use crate::state::{CA_CERT, CA_KEY, CA_NEXT_CERT, CA_NEXT_KEY, Secrecy, StateDir, TRUST_ANCHORS};
use anyhow::{Context, Result, anyhow, bail};
use futures_util::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use std::collections::BTreeMap;
use std::pin::pin;
use tokio::time::{Instant, sleep_until};

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
/// What is there only while roots are rotated.
const NEXT: [(&str, Secrecy); 2] = [
    (CA_NEXT_KEY, Secrecy::Private),
    (CA_NEXT_CERT, Secrecy::Public),
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

/// Keeps the state folder as the Secret is, until it is dropped. What cannot be used, or is gone, changes nothing.
pub async fn follow(client: Client, namespace: String, state: StateDir, trust_domain: String) {
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let config = || {
        watcher::Config::default()
            .fields(&format!("metadata.name={CA_SECRET}"))
            .timeout(WATCH_SECONDS)
    };
    let mut pause = Pause::default();
    let mut taking = Taking::new(state, trust_domain);
    loop {
        let mut said = pin!(watcher(api.clone(), config()));
        // After a failure everything is read again: it is one object.
        loop {
            let event = tokio::select! {
                event = said.next() => event,
                () = taking.due() => {
                    taking.again();
                    continue;
                }
            };
            let Some(Ok(event)) = event else {
                break;
            };
            // That a list begins is said before the server was asked.
            if !matches!(event, Event::Init) {
                pause.reset();
            }
            let taken = match event {
                Event::Apply(secret) | Event::InitApply(secret) => taking.take(secret),
                Event::Delete(_) => {
                    taking.left = None;
                    Err(anyhow!("it was deleted; a restart makes a new root"))
                }
                Event::Init | Event::InitDone => Ok(()),
            };
            if let Err(error) = taken {
                tracing::error!("the Secret {namespace}/{CA_SECRET} is not followed: {error:#}");
            }
        }
        let (first, wait) = pause.next();
        if first {
            tracing::debug!("the Secret {namespace}/{CA_SECRET} cannot be watched");
        }
        tokio::time::sleep(wait).await;
    }
}

/// What could not be taken over is tried again: the reason may be here, e.g. a volume that is full, and no change of the
/// Secret would tell when it is gone.
struct Taking {
    state: StateDir,
    trust_domain: String,
    left: Option<(Secret, Instant)>,
    pause: Pause,
}

impl Taking {
    fn new(state: StateDir, trust_domain: String) -> Self {
        Self {
            state,
            trust_domain,
            left: None,
            pause: Pause::default(),
        }
    }

    /// Takes over what the Secret says now.
    fn take(&mut self, secret: Secret) -> Result<()> {
        self.pause.reset();
        self.attempt(secret)
    }

    /// Resolves when what is left should be tried again.
    async fn due(&self) {
        match &self.left {
            Some((_, at)) => sleep_until(*at).await,
            None => std::future::pending().await,
        }
    }

    /// Tries what is left; that it failed was said the first time.
    fn again(&mut self) {
        let Some((secret, _)) = self.left.take() else {
            return;
        };
        if self.attempt(secret).is_ok() {
            tracing::info!("the Secret {CA_SECRET} has been taken over");
        }
    }

    fn attempt(&mut self, secret: Secret) -> Result<()> {
        let taken = take(&secret, &self.state, &self.trust_domain);
        self.left = match taken {
            Ok(()) => None,
            Err(_) => Some((secret, Instant::now() + self.pause.next().1)),
        };
        taken
    }
}

/// Takes over what the Secret says, if an authority can be made of it.
fn take(secret: &Secret, state: &StateDir, trust_domain: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let aside = StateDir::open(folder.path())?;
    unpack(secret, &aside)?;
    Ca::open_or_create(&aside, trust_domain)?;
    let _lock = state.lock()?; // whoever reads all of it must not see half
    unpack(secret, state)
}

/// Changes the authority of the Secret as that of a state folder is changed.
pub async fn change(
    client: Client,
    namespace: &str,
    change: impl Fn(&StateDir) -> Result<()>,
) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let whole = || format!("the Secret {namespace}/{CA_SECRET}");
    for _ in 0..ATTEMPTS {
        let found = api.get_opt(CA_SECRET).await;
        let found = found.with_context(|| format!("cannot read {}", whole()))?;
        let mut secret = found.with_context(|| format!("there is no {}", &whole()[4..]))?;
        let folder = tempfile::tempdir()?;
        let state = StateDir::open(folder.path())?;
        unpack(&secret, &state).with_context(whole)?;
        change(&state)?;
        pack(&state, secret.data.get_or_insert_default())?;
        // Its resourceVersion goes back with it: what changed meanwhile is not overwritten.
        match api
            .replace(CA_SECRET, &PostParams::default(), &secret)
            .await
        {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write {}", whole())),
        }
    }
    bail!("{} changes all the time", whole())
}

/// A new authority as a Secret.
fn make(trust_domain: &str) -> Result<Secret> {
    let folder = tempfile::tempdir()?;
    let state = StateDir::open(folder.path())?;
    Ca::open_or_create(&state, trust_domain)?;
    let mut data = BTreeMap::new();
    pack(&state, &mut data)?;
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

/// The files of a state folder, as the Secret holds them; what else it holds stays.
fn pack(state: &StateDir, data: &mut BTreeMap<String, ByteString>) -> Result<()> {
    for (name, secrecy) in FILES.into_iter().chain(NEXT) {
        match state.read(name, secrecy)? {
            Some(text) => drop(data.insert(name.to_owned(), ByteString(text.into_bytes()))),
            None => drop(data.remove(name)),
        }
    }
    Ok(())
}

fn unpack(secret: &Secret, state: &StateDir) -> Result<()> {
    for (name, secrecy) in NEXT.into_iter().chain(FILES) {
        let data = secret.data.as_ref().and_then(|data| data.get(name));
        let Some(ByteString(bytes)) = data else {
            if NEXT.contains(&(name, secrecy)) {
                state.remove(name)?;
                continue;
            }
            bail!("{name} is missing");
        };
        let text = std::str::from_utf8(bytes).map_err(|_| anyhow!("{name} is not PEM"))?;
        // What is there already is left alone: a new file would look like a change.
        if state.read(name, secrecy)?.as_deref() != Some(text) {
            state.write(name, secrecy, text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ca::rotate;

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
    fn a_rotation_goes_through_the_secret_step_by_step() {
        let mut secret = make("cluster.local").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let controller = StateDir::open(folder.path()).unwrap();
        unpack(&secret, &controller).unwrap();
        let ca = Ca::open_or_create(&controller, "cluster.local").unwrap();
        let first = ca.roots();
        type Step = fn(&StateDir) -> Result<()>;
        let steps: [(Step, usize); 3] = [
            (|state| rotate::begin(state, "cluster.local"), 2),
            (rotate::switch, 2),
            (rotate::finish, 1),
        ];
        for (step, roots) in steps {
            let aside = tempfile::tempdir().unwrap();
            let state = StateDir::open(aside.path()).unwrap();
            unpack(&secret, &state).unwrap();
            step(&state).unwrap();
            pack(&state, secret.data.as_mut().unwrap()).unwrap();
            take(&secret, &controller, "cluster.local").unwrap();
            assert!(ca.reload(&controller).unwrap());
            assert_eq!(ca.roots().len(), roots);
        }
        assert!(!ca.roots().contains(&first[0]), "another root");
        let names: Vec<&String> = secret.data.as_ref().unwrap().keys().collect();
        assert_eq!(names, [CA_CERT, CA_KEY, TRUST_ANCHORS], "nothing is left");
    }

    #[test]
    fn a_secret_that_cannot_be_used_leaves_the_folder_alone() {
        let mut secret = make("cluster.local").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        take(&secret, &state, "cluster.local").unwrap();
        let before = state.fingerprint();
        take(&secret, &state, "cluster.local").unwrap();
        assert_eq!(state.fingerprint(), before, "nothing is written anew");
        // The key of another authority.
        let other = make("cluster.local").unwrap().data.unwrap();
        let key = other[CA_KEY].clone();
        secret.data.as_mut().unwrap().insert(CA_KEY.into(), key);
        assert!(take(&secret, &state, "cluster.local").is_err());
        assert_eq!(state.fingerprint(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_taken_over_is_tried_again_until_it_can_be() {
        let secret = make("cluster.local").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let mut taking = Taking::new(StateDir::open(&path).unwrap(), "cluster.local".into());
        std::fs::remove_dir_all(&path).unwrap();
        assert!(taking.take(secret).is_err());
        for _ in 0..3 {
            taking.due().await;
            taking.again();
            assert!(taking.left.is_some());
        }
        let state = StateDir::open(&path).unwrap();
        taking.due().await;
        taking.again();
        assert!(taking.left.is_none());
        assert!(Ca::open_or_create(&state, "cluster.local").is_ok());
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
