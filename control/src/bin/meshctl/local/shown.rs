//! What a node says, as tables, JSON or a stream of lines.

use std::fs::File;
use std::io::{IsTerminal, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use weft_control::local::{Client, PodInfo, ServiceInfo};

use super::Format;

pub(super) fn logs(path: &Path, follow: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let older = path.with_extension("log.1");
    if let Ok(mut file) = File::open(older) {
        std::io::copy(&mut file, &mut out)?;
    }
    let mut at = 0;
    loop {
        if let Ok(mut file) = File::open(path) {
            // A file that shrank was put aside: begin with the new one.
            if file.metadata()?.len() < at {
                at = 0;
            }
            file.seek(SeekFrom::Start(at))?;
            at += std::io::copy(&mut file, &mut out)?;
            out.flush()?;
        }
        if !follow || !path.parent().is_some_and(Path::exists) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(150));
    }
}

pub(super) fn status(client: &Client, output: Format) -> Result<()> {
    let status = client.status()?;
    if output == Format::Json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
    println!("rung        {}", status.rung_reason);
    println!("state       {}", status.state.display());
    match status.control_pid {
        Some(_) => println!(
            "controller  running at {}, started {} ×",
            status.control_addr, status.control_starts
        ),
        None => println!("controller  not running"),
    }
    for problem in &status.problems {
        println!("problem     {problem}");
    }
    Ok(())
}

pub(super) fn pods(pods: &[PodInfo], output: Format) -> Result<()> {
    if output == Format::Json {
        println!("{}", serde_json::to_string_pretty(pods)?);
        return Ok(());
    }
    let wide = output == Format::Wide;
    let mut rows = vec![
        vec![
            "NAMESPACE",
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "AGE",
            "MESH",
        ]
        .into_iter()
        .map(String::from)
        .collect::<Vec<_>>(),
    ];
    if wide {
        rows[0].extend(["IP", "OWNER", "MESSAGE"].map(String::from));
    }
    for pod in pods {
        let lasting: Vec<_> = pod
            .containers
            .iter()
            .filter(|c| !c.init || c.sidecar)
            .collect();
        let ready = lasting.iter().filter(|c| c.ready).count();
        let restarts: u32 = pod.containers.iter().map(|c| c.restarts).sum();
        let mut row = vec![
            pod.namespace.clone(),
            pod.name.clone(),
            format!("{ready}/{}", lasting.len()),
            pod.status.clone(),
            restarts.to_string(),
            format!("{}s", pod.age_seconds),
            if pod.meshed { "yes" } else { "no" }.into(),
        ];
        if wide {
            let reason = pod
                .containers
                .iter()
                .filter(|c| !c.ready)
                .find_map(|c| Some(format!("{}: {}", c.name, c.reason.as_ref()?)));
            row.push(pod.ips.first().map_or("-".into(), ToString::to_string));
            row.push(pod.owner.clone().unwrap_or_else(|| "-".into()));
            row.push(pod.message.clone().or(reason).unwrap_or_default());
        }
        rows.push(row);
    }
    print(&rows, "no pods");
    Ok(())
}

pub(super) fn services(services: &[ServiceInfo], output: Format) -> Result<()> {
    if output == Format::Json {
        println!("{}", serde_json::to_string_pretty(services)?);
        return Ok(());
    }
    let mut rows = vec![
        ["NAMESPACE", "NAME", "CLUSTER-IP", "PORTS", "ENDPOINTS"]
            .map(String::from)
            .to_vec(),
    ];
    for service in services {
        let list = |items: Vec<String>| {
            if items.is_empty() {
                "-".to_owned()
            } else {
                items.join(",")
            }
        };
        rows.push(vec![
            service.namespace.clone(),
            service.name.clone(),
            list(
                service
                    .cluster_ips
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            ),
            list(
                service
                    .ports
                    .iter()
                    .map(|p| format!("{}/{}", p.port, p.protocol))
                    .collect(),
            ),
            list(service.endpoints.iter().map(ToString::to_string).collect()),
        ]);
    }
    print(&rows, "no services");
    Ok(())
}

/// Columns as wide as their widest cell.
fn print(rows: &[Vec<String>], nothing: &str) {
    if rows.len() < 2 {
        if std::io::stderr().is_terminal() {
            eprintln!("{nothing}");
        }
        return;
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    for row in rows {
        let line: String = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}   "))
            .collect();
        println!("{}", line.trim_end());
    }
}
