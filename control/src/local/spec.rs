//! From a container as written to what is really run: command, environment, user. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use weft_proxy_api::names::{PROXY_MARK, inject, proxy_env};

use super::addresses::Space;
use super::enter::Mount;
use super::loopback::{self, Place};
use super::options::Rung;
use super::rootfs;
use crate::manifest::workload::{Container, EnvSource, Pod, SecurityContext, Volume};

/// What is known when a container starts.
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) ips: &'a [std::net::IpAddr],
    pub(crate) rung: Rung,
    /// Taken over from whoever started the node: `PATH`, `HOME`, `LANG`.
    pub(crate) base: &'a [(String, String)],
    /// ConfigMaps by namespace and name.
    pub(crate) configs: &'a Configs,
    /// On the rung without namespaces.
    pub(crate) place: Option<&'a Place>,
}

/// Texts of the ConfigMaps, by namespace and name.
pub(crate) type Configs = BTreeMap<(String, String), BTreeMap<String, String>>;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) workdir: Option<String>,
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) mounts: Vec<Mount>,
}

/// Everything that is wrong with a container is said here, before anything starts.
pub(crate) fn resolve(container: &Container, facts: &Facts<'_>) -> Result<Run, String> {
    let mut env = environment(container, facts)?;
    let mut argv: Vec<_> = command(container, facts.rung)?
        .into_iter()
        .map(|arg| expand(&arg, &env))
        .collect();
    let pod_dir = facts
        .place
        .map_or(rootfs::POD.as_ref(), |place| &*place.dir);
    let mut mounts = mounts(container, &facts.pod.spec.volumes, pod_dir)?;
    if facts.place.is_some() {
        let real = |text: &mut String| *text = loopback::real(text, &mounts);
        argv.iter_mut().for_each(real);
        env.iter_mut().map(|(_, value)| value).for_each(real);
        mounts.clear();
    }
    let (user, group) = match facts.rung {
        Rung::Root => identity(container, facts.pod.spec.security_context.as_ref()),
        // One mapped user: there is nobody else to be.
        Rung::User | Rung::Loopback => (None, None),
    };
    Ok(Run {
        argv,
        env,
        workdir: container.working_dir.clone(),
        user,
        group,
        mounts,
    })
}

fn command(container: &Container, rung: Rung) -> Result<Vec<String>, String> {
    let mut argv =
        if container.command.is_empty() {
            vec![own_program(container).ok_or_else(|| {
            format!(
                "container {} has no command: images are not run here, say `command` (image {})",
                container.name,
                if container.image.is_empty() { "none" } else { &container.image }
            )
        })?]
        } else {
            container.command.clone()
        };
    argv.extend(container.args.iter().cloned());
    if is_ours(container) && container.name == inject::INIT_CONTAINER && rung != Rung::Root {
        argv = by_mark(argv);
    }
    Ok(argv)
}

fn is_ours(container: &Container) -> bool {
    let image = container.image.as_str();
    let name = image.split(['@']).next().unwrap_or(image);
    name == inject::IMAGE
        || name
            .strip_prefix(inject::IMAGE)
            .is_some_and(|tag| tag.starts_with(':'))
        || container.name == inject::INIT_CONTAINER
        || container.name == inject::PROXY_CONTAINER
}

fn own_program(container: &Container) -> Option<String> {
    if !is_ours(container) {
        return None;
    }
    match container.name.as_str() {
        inject::INIT_CONTAINER => Some("weft-init".into()),
        inject::PROXY_CONTAINER => Some("weft-proxy".into()),
        _ => None,
    }
}

/// With one mapped user the kernel cannot tell the proxy by its uid, so it is told by its mark.
fn by_mark(argv: Vec<String>) -> Vec<String> {
    let mut out = Vec::with_capacity(argv.len() + 2);
    let mut args = argv.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--proxy-uid" | "--proxy-gid" => drop(args.next()),
            _ if arg.starts_with("--proxy-uid=") || arg.starts_with("--proxy-gid=") => {}
            _ => out.push(arg),
        }
    }
    if !out.iter().any(|arg| arg.starts_with("--proxy-mark")) {
        out.extend(["--proxy-mark".to_owned(), format!("{PROXY_MARK:#x}")]);
    }
    out
}

fn environment(container: &Container, facts: &Facts<'_>) -> Result<Vec<(String, String)>, String> {
    let mut env: Vec<(String, String)> = facts.base.to_vec();
    let bin = facts
        .place
        .map_or(rootfs::BIN.into(), |place| place.bin.display().to_string());
    match env.iter_mut().find(|(name, _)| name == "PATH") {
        Some((_, path)) => *path = format!("{bin}:{path}"),
        None => env.push((
            "PATH".into(),
            format!("{bin}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
        )),
    }
    set(&mut env, "HOSTNAME", hostname(facts.pod));
    for (name, value) in facts.place.iter().flat_map(|p| p.facts(facts.pod)) {
        set(&mut env, name, value);
    }
    for var in &container.env {
        let value = match (&var.value, &var.value_from) {
            (Some(text), _) => Some(expand(text, &env)),
            (None, Some(source)) => {
                from_source(source, facts).map_err(|why| format!("env {}: {why}", var.name))?
            }
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            set(&mut env, &var.name, value);
        }
    }
    if is_ours(container) && container.name == inject::PROXY_CONTAINER {
        if facts.rung == Rung::User {
            set(&mut env, proxy_env::MARK, format!("{PROXY_MARK:#x}"));
        }
        for (name, value) in facts.place.iter().flat_map(|p| p.proxy_facts(facts.pod)) {
            set(&mut env, name, value);
        }
    }
    match env
        .iter()
        .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
    {
        Some((name, _)) => Err(format!("env {name:?} cannot be set")),
        None => Ok(env),
    }
}

/// Host name of a pod: its own, cut to what the kernel takes.
pub(crate) fn hostname(pod: &Pod) -> String {
    let name = pod.spec.hostname.as_deref().unwrap_or(&pod.metadata.name);
    name.chars().take(63).collect()
}

fn set(env: &mut Vec<(String, String)>, name: &str, value: String) {
    match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => env.push((name.to_owned(), value)),
    }
}

fn from_source(source: &EnvSource, facts: &Facts<'_>) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return pod_field(&field.field_path, facts).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let config = facts
            .configs
            .get(&(facts.pod.metadata.namespace.clone(), key.name.clone()));
        return match config.and_then(|data| data.get(&key.key)) {
            Some(text) => Ok(Some(text.clone())),
            None if key.optional == Some(true) => Ok(None),
            None => Err(format!(
                "there is no key {} in ConfigMap {}",
                key.key, key.name
            )),
        };
    }
    if let Some(resource) = &source.resource_field_ref {
        return match resource.resource.as_str() {
            "limits.cpu" | "requests.cpu" => Ok(Some("1".into())),
            _ => Ok(None),
        };
    }
    match &source.secret_key_ref {
        Some(key) if key.optional == Some(true) => Ok(None),
        _ => Err("this source is not known here (fieldRef and configMapKeyRef are)".into()),
    }
}

/// A field of the pod, as `fieldRef` names it.
pub(crate) fn pod_field(path: &str, facts: &Facts<'_>) -> Result<String, String> {
    let meta = &facts.pod.metadata;
    let node = Space::of(facts.rung).node().to_string();
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "spec.serviceAccountName" => facts.pod.spec.account().to_owned(),
        "spec.nodeName" => "local".into(),
        "status.hostIP" => node,
        "status.podIP" => facts
            .ips
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        "status.podIPs" => facts
            .ips
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
        _ => {
            let (map, key) = if let Some(rest) = path.strip_prefix("metadata.labels['") {
                (&meta.labels, rest)
            } else if let Some(rest) = path.strip_prefix("metadata.annotations['") {
                (&meta.annotations, rest)
            } else {
                return Err(format!("fieldRef {path} is not known here"));
            };
            let key = key
                .strip_suffix("']")
                .ok_or_else(|| format!("fieldRef {path} is not complete"))?;
            map.get(key).cloned().unwrap_or_default()
        }
    })
}

/// `$(NAME)` as Kubernetes expands it: unknown names stay, `$$(NAME)` is the text `$(NAME)`.
pub(crate) fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
            continue;
        }
        let name = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        match name.and_then(|(name, tail)| {
            Some((env.iter().rev().find(|(known, _)| known == name)?, tail))
        }) {
            Some(((_, value), tail)) => {
                out.push_str(value);
                rest = tail;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn identity(container: &Container, pod: Option<&SecurityContext>) -> (Option<u32>, Option<u32>) {
    let own = container.security_context.as_ref();
    let user = own
        .and_then(|c| c.run_as_user)
        .or(pod.and_then(|c| c.run_as_user));
    let group = own
        .and_then(|c| c.run_as_group)
        .or(pod.and_then(|c| c.run_as_group));
    (user, group)
}

/// In the order of their paths, so that one inside another comes after it.
fn mounts(container: &Container, volumes: &[Volume], pod_dir: &Path) -> Result<Vec<Mount>, String> {
    let mut mounts: Vec<_> = container
        .volume_mounts
        .iter()
        .map(|mount| {
            let volume = volumes
                .iter()
                .find(|volume| volume.name == mount.name)
                .ok_or_else(|| {
                    format!(
                        "container {}: there is no volume {}",
                        container.name, mount.name
                    )
                })?;
            let target = PathBuf::from(&mount.mount_path);
            let climbs = |path: &std::path::Path| {
                path.components()
                    .any(|c| c == std::path::Component::ParentDir)
            };
            if !target.is_absolute() || climbs(&target) {
                return Err(format!(
                    "container {}: mountPath {} must be absolute",
                    container.name, mount.mount_path
                ));
            }
            let mut source = match &volume.host_path {
                Some(host) => PathBuf::from(&host.path),
                None => pod_dir.join("volumes").join(&volume.name),
            };
            if let Some(part) = &mount.sub_path {
                if climbs(std::path::Path::new(part)) || part.starts_with('/') {
                    return Err(format!(
                        "container {}: subPath {part} leaves the volume",
                        container.name
                    ));
                }
                source.push(part);
            }
            Ok(Mount {
                source,
                target,
                read_only: mount.read_only,
            })
        })
        .collect::<Result<_, String>>()?;
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(mounts)
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
