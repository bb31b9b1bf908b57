//! What is in a pod's volumes: files below its own folder, mounted into its containers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::spec::Configs;
use crate::manifest::workload::{ConfigMapVolume, Pod, Volume};
use crate::pod_ref::PodRef;
use crate::state::StateDir;
use weft_proxy_api::names::inject::TOKEN_SECONDS;

/// Longest-lived files first: how often tokens are written anew.
pub(crate) const REFRESH: Duration = Duration::from_secs(TOKEN_SECONDS * 4 / 5);

/// Everything is wrong with a volume is said before the pod starts.
pub(crate) fn check(volume: &Volume) -> Result<(), String> {
    let known = volume.projected.is_some()
        || volume.config_map.is_some()
        || volume.empty_dir.is_some()
        || volume.host_path.is_some();
    if known {
        return Ok(());
    }
    let kind = if volume.secret.is_some() {
        "a secret"
    } else {
        "of a kind not known here"
    };
    Err(format!(
        "volume {} is {kind} (emptyDir, configMap, projected and hostPath are known)",
        volume.name
    ))
}

/// Write (or write again) all volumes of a pod below `dir`.
pub(crate) fn write(
    dir: &Path,
    pod: &Pod,
    configs: &Configs,
    tokens: Option<&StateDir>,
) -> Result<()> {
    for volume in &pod.spec.volumes {
        let at = dir.join(&volume.name);
        fs::create_dir_all(&at)?;
        if volume.empty_dir.is_some() {
            // Any user of the pod may write.
            fs::set_permissions(&at, fs::Permissions::from_mode(0o777))?;
        }
        if let Some(config) = &volume.config_map {
            config_files(&at, pod, config, configs)?;
        }
        for source in volume
            .projected
            .iter()
            .flat_map(|projected| &projected.sources)
        {
            if let Some(config) = &source.config_map {
                config_files(&at, pod, config, configs)?;
            }
            if let Some(token) = &source.service_account_token {
                let Some(state) = tokens else {
                    bail!("there is no controller that could check a token")
                };
                let meta = &pod.metadata;
                let life = Duration::from_secs(
                    token
                        .expiration_seconds
                        .unwrap_or(TOKEN_SECONDS)
                        .clamp(600, 7 * 24 * 3600),
                );
                let text = crate::token::issue_for_pod(
                    state,
                    &PodRef::new(&meta.namespace, &meta.name),
                    pod.spec.account(),
                    life,
                )?;
                file(&at, &token.path, &text)?;
            }
        }
    }
    Ok(())
}

fn config_files(at: &Path, pod: &Pod, volume: &ConfigMapVolume, configs: &Configs) -> Result<()> {
    let key = (pod.metadata.namespace.clone(), volume.name.clone());
    let Some(data) = configs.get(&key) else {
        if volume.optional == Some(true) {
            return Ok(());
        }
        bail!("there is no ConfigMap {} in {}", key.1, key.0);
    };
    if volume.items.is_empty() {
        return data
            .iter()
            .try_for_each(|(name, text)| file(at, name, text));
    }
    for item in &volume.items {
        let text = data
            .get(&item.key)
            .with_context(|| format!("ConfigMap {} has no key {}", volume.name, item.key))?;
        file(at, &item.path, text)?;
    }
    Ok(())
}

/// Aside and renamed, so that a reader sees the old text or the new one.
fn file(dir: &Path, name: &str, text: &str) -> Result<()> {
    let relative = Path::new(name);
    if relative
        .components()
        .any(|part| !matches!(part, Component::Normal(_)))
    {
        bail!("{name} leaves its volume");
    }
    let path = dir.join(relative);
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(dir);
    fs::create_dir_all(parent)?;
    let mut aside = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(parent)?;
    std::io::Write::write_all(&mut aside, text.as_bytes())?;
    // Proxy and application may be different users; the folder above is private to the node.
    aside
        .as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    aside.persist(&path)?;
    Ok(())
}

/// ConfigMaps a pod looks at, to see whether they changed.
pub(crate) fn used(pod: &Pod, configs: &Configs) -> BTreeMap<String, BTreeMap<String, String>> {
    let direct = pod
        .spec
        .volumes
        .iter()
        .filter_map(|v| v.config_map.as_ref());
    let projected = pod
        .spec
        .volumes
        .iter()
        .filter_map(|v| v.projected.as_ref())
        .flat_map(|p| &p.sources);
    direct
        .chain(projected.filter_map(|s| s.config_map.as_ref()))
        .filter_map(|c| {
            Some((
                c.name.clone(),
                configs
                    .get(&(pod.metadata.namespace.clone(), c.name.clone()))?
                    .clone(),
            ))
        })
        .collect()
}
