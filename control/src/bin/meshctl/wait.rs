//! `meshctl wait`: until a change is everywhere.

use crate::install::block_on;
use crate::live::{Place, Running, object};
use crate::observe::connect::Unreachable;
use crate::simulate::failed;
use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use weft_control::check::Asked;
use weft_control::describe;
use weft_control::kube::connect;
use weft_control::live::cluster;
use weft_control::live::sync::Standing;
use weft_control::manifest::{Kind, ObjectKey};

/// Between two questions to a controller, and to an API server.
const PAUSE: Duration = Duration::from_millis(100);
const CLUSTER_PAUSE: Duration = Duration::from_millis(500);
/// Most proxies named.
const MOST: usize = 10;

/// Wait until a change is everywhere
///
/// Returns once all that is written has been read, the named object is in force as it is written, and every proxy has taken
/// over what follows from it: the next request obeys. Without an object: once every proxy has everything. Exit code 1: not within
/// the time (what is missing is said), or the object is rejected; 2: usage; 3: the mesh cannot be reached.
#[derive(Debug, Args)]
#[command(
    after_help = "It asks the API server of --kubeconfig or --context, or the controller of --state or --control; where \
    none of these is named, the node that runs on this machine (meshctl local), and else the API server that kubectl would ask."
)]
pub(crate) struct WaitArgs {
    /// E.g. trafficsplit/web
    #[arg(value_name = "KIND/NAME")]
    object: Option<String>,
    /// Namespace of the object
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// What to wait for
    #[arg(long = "for", value_enum, value_name = "WHAT", default_value_t = For::Programmed)]
    what: For,
    /// How long at most
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    running: Running,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum For {
    /// The object is in force as it is written
    Accepted,
    /// That, and every proxy has taken it over
    Programmed,
    /// Every proxy has everything, whatever becomes of the object
    Synced,
    /// The object is gone, and every proxy has taken that over
    Deleted,
}

fn duration(text: &str) -> Result<Duration, String> {
    weft_control::args::parse_duration(text).ok_or_else(|| "is not a time like 30s or 5m".into())
}

/// 0, 1 for what is not so within the time, 2 for bad usage, 3 for a mesh that cannot be reached.
pub(crate) fn run(args: &WaitArgs) -> ExitCode {
    wait(args).unwrap_or_else(|error| failed(&error))
}

fn wait(args: &WaitArgs) -> Result<ExitCode> {
    let key = args.key()?;
    let (began, place) = (Instant::now(), args.running.place());
    // An API server does not say what each replica has read of it, e.g. that an object is gone: so it has to be well twice.
    let (pause, enough) = match place {
        Place::Controller(_) => (PAUSE, 1),
        Place::Kubernetes(_) => (CLUSTER_PAUSE, 2),
    };
    let (mut was_reached, mut well) = (false, 0);
    // When all that matters was in force at the controllers: what came later is something else.
    let mut read: Option<Instant> = None;
    loop {
        let recent = read.map_or(Duration::ZERO, |at| at.elapsed());
        let missing = match standing(&place, key.as_ref(), args.what, recent) {
            Ok(standing) => {
                was_reached = true;
                if let Some(why) = rejected(args.what, &standing) {
                    eprintln!("meshctl: {why}");
                    return Ok(ExitCode::FAILURE);
                }
                if unread(args.what, key.as_ref(), &standing).is_empty() {
                    read.get_or_insert_with(Instant::now);
                }
                missing(args.what, key.as_ref(), &standing)
            }
            Err(error) if was_reached && error.is::<Unreachable>() => vec![error.to_string()],
            Err(error) => return Err(error),
        };
        well = if missing.is_empty() { well + 1 } else { 0 };
        if well == enough {
            return Ok(ExitCode::SUCCESS);
        }
        if began.elapsed() + pause > args.timeout {
            eprintln!("meshctl: not within {:?}:", args.timeout);
            missing.iter().take(MOST).for_each(|it| eprintln!("  {it}"));
            if missing.len() > MOST {
                eprintln!("  and {} more", missing.len() - MOST);
            }
            return Ok(ExitCode::FAILURE);
        }
        std::thread::sleep(pause);
    }
}

impl WaitArgs {
    fn key(&self) -> Result<Option<ObjectKey>> {
        let Some(text) = &self.object else {
            return match self.what {
                For::Programmed | For::Synced => Ok(None),
                _ => Err(anyhow!("which object? KIND/NAME is missing")),
            };
        };
        let (kind, name) = text
            .split_once('/')
            .with_context(|| format!("{text}: expected KIND/NAME, e.g. trafficsplit/web"))?;
        let kind = describe::kind(kind).with_context(|| format!("{kind}: no kind of the mesh"))?;
        let namespace = match kind {
            Kind::Namespace => "",
            _ => &self.namespace,
        };
        Ok(Some(ObjectKey::new(kind, namespace, name)))
    }
}

impl For {
    /// Only the controllers can say it: conditions tell of an object that is there, and of nothing else.
    fn is_of_proxies(self, key: Option<&ObjectKey>) -> bool {
        match self {
            Self::Accepted => false,
            Self::Programmed => !key.is_some_and(cluster::has_conditions),
            Self::Synced | Self::Deleted => true,
        }
    }
}

/// `recent`: how long ago all that matters was in force.
fn standing(
    place: &Place<'_>,
    key: Option<&ObjectKey>,
    what: For,
    recent: Duration,
) -> Result<Standing> {
    match place {
        Place::Controller(target) => {
            let object = key.map(|key| format!("object={}", object(key)));
            let recent = (!recent.is_zero()).then(|| format!("recent={}", recent.as_millis()));
            let query: Vec<String> = object.into_iter().chain(recent).collect();
            let said = target.get(&format!("/api/v1/sync?{}", query.join("&")))?;
            serde_json::from_str(&said).context("the controller's answer cannot be read")
        }
        Place::Kubernetes(settings) => block_on(async {
            let client = connect::client(settings).await.map_err(Unreachable)?;
            let asked = Asked::open(settings).await?;
            let of_proxies = what.is_of_proxies(key);
            let standing = cluster::standing(&asked, &client, key, of_proxies).await;
            standing.map_err(|error| Unreachable(error).into())
        }),
    }
}

/// Why waiting is of no use.
fn rejected(what: For, standing: &Standing) -> Option<String> {
    let rejected = &standing.object.as_ref()?.rejected;
    let matters = matches!(what, For::Accepted | For::Programmed) && !rejected.is_empty();
    matters.then(|| {
        format!(
            "it is not in force as it is written: {}",
            rejected.join("; ")
        )
    })
}

/// What is not as it should be with the controllers, yet.
fn unread(what: For, key: Option<&ObjectKey>, standing: &Standing) -> Vec<String> {
    let mut missing = Vec::new();
    let name = key.map(ToString::to_string).unwrap_or_default();
    let in_force = standing.object.as_ref().is_some_and(|it| it.in_force);
    match what {
        For::Accepted | For::Programmed if key.is_some() && !in_force => {
            missing.push(format!("{name} is not there, or not in force"));
        }
        For::Deleted if in_force => missing.push(format!("{name} is there")),
        _ => {}
    }
    if !standing.up_to_date {
        missing.push("not all that is written has been read".to_owned());
    }
    missing
}

/// What is not as it should be, yet.
fn missing(what: For, key: Option<&ObjectKey>, standing: &Standing) -> Vec<String> {
    let mut missing = unread(what, key, standing);
    if what == For::Accepted {
        return missing;
    }
    let behind = standing.proxies.behind.iter();
    missing.extend(behind.map(|it| format!("{}: {}", it.pod, it.why)));
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_control::live::sync::{Behind, ObjectStanding};

    #[test]
    fn what_is_waited_for_is_missing_until_it_is_so() {
        let key = ObjectKey::new(Kind::TrafficSplit, "default", "web");
        let standing = |in_force: bool, behind: &[&str]| {
            let mut standing = Standing {
                up_to_date: true,
                object: Some(ObjectStanding {
                    in_force,
                    rejected: vec![],
                }),
                ..Standing::default()
            };
            let behind = behind.iter().map(|pod| Behind {
                pod: (*pod).to_owned(),
                why: "why".to_owned(),
            });
            standing.proxies.behind = behind.collect();
            standing
        };
        for (what, in_force, behind, expected) in [
            (For::Programmed, true, &[][..], 0),
            (For::Programmed, false, &[], 1),
            (For::Programmed, true, &["a/p"], 1),
            (For::Accepted, true, &["a/p"], 0),
            (For::Accepted, false, &[], 1),
            (For::Synced, false, &[], 0),
            (For::Synced, true, &["a/p", "a/q"], 2),
            (For::Deleted, true, &[], 1),
            (For::Deleted, false, &[], 0),
            (For::Deleted, false, &["a/p"], 1),
        ] {
            let standing = standing(in_force, behind);
            let found = missing(what, Some(&key), &standing);
            assert_eq!(
                found.len(),
                expected,
                "{what:?} {in_force} {behind:?}: {found:?}"
            );
        }
        let mut unread = standing(true, &[]);
        unread.up_to_date = false;
        assert_eq!(missing(For::Synced, None, &unread).len(), 1);
        assert_eq!(
            missing(For::Programmed, None, &standing(true, &[])).len(),
            0
        );
    }

    #[test]
    fn conditions_tell_of_an_object_that_is_there_and_of_nothing_else() {
        let split = ObjectKey::new(Kind::TrafficSplit, "default", "web");
        let pod = ObjectKey::new(Kind::Pod, "default", "web");
        for (what, key, expected) in [
            (For::Accepted, Some(&pod), false),
            (For::Programmed, Some(&split), false),
            (For::Programmed, Some(&pod), true),
            (For::Programmed, None, true),
            (For::Synced, Some(&split), true),
            (For::Deleted, Some(&split), true),
        ] {
            assert_eq!(what.is_of_proxies(key), expected, "{what:?} {key:?}");
        }
    }

    #[test]
    fn who_is_rejected_does_not_wait() {
        let standing = Standing {
            object: Some(ObjectStanding {
                in_force: true,
                rejected: vec!["spec.backends: is missing".to_owned()],
            }),
            ..Standing::default()
        };
        assert!(rejected(For::Programmed, &standing).is_some());
        assert!(rejected(For::Synced, &standing).is_none());
    }
}
