//! Roots are replaced while everybody goes on calling.

use crate::Case;
use anyhow::{Context, ensure};
use harness::roots::{self, certificate, shake};
use harness::{Access, Exec, Mesh, echo, eventually};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

pub(crate) const CASES: &[Case] = &[(
    "roots_are_replaced_without_a_failed_request",
    &["curl", "openssl"],
    replaced,
)];

fn replaced() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 2), &echo("client", 1)])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let state = mesh.state().join("control");
    let scratch = tempfile::tempdir()?;
    certificate(&state, scratch.path(), "old")?;
    let load = Load::start(&mesh)?;

    roots::replace(&mesh)?;
    certificate(&state, scratch.path(), "new")?;
    eventually("there was some traffic meanwhile", || {
        let asked = load.counts[0].load(Ordering::Relaxed);
        ensure!(asked >= 20, "{asked} requests");
        Ok(())
    })?;

    let (asked, failed) = load.stop()?;
    ensure!(asked >= 20 && failed == 0, "{failed} of {asked} failed");
    let refused = || -> anyhow::Result<f64> {
        Ok(mesh
            .metrics("web")?
            .sum("weft_policy_denied_total", &[("reason", "tls_unknown_ca")]))
    };
    ensure!(refused()? == 0.0, "nobody was refused meanwhile");
    shake(&mesh, scratch.path(), Some("new"))?;
    ensure!(refused()? == 0.0, "the new root's certificate is taken");
    shake(&mesh, scratch.path(), Some("old"))?;
    eventually("the old root's certificate is refused", || {
        ensure!(refused()? >= 1.0);
        Ok(())
    })?;
    let first = mesh.pod("client")?.name;
    mesh.client().restart("Deployment", "default", "client")?;
    eventually("a pod of today begins with the new root", || {
        ensure!(mesh.pods("client")?.iter().all(|pod| pod.name != first));
        Ok(())
    })?;
    mesh.answers("client", "http://web:8080/", 200)
}

/// One request after the other, each on a connection of its own.
struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<[AtomicU32; 2]>,
    thread: std::thread::JoinHandle<anyhow::Result<()>>,
}

impl Load {
    fn start(mesh: &Mesh) -> anyhow::Result<Self> {
        let (stop, counts): (Arc<AtomicBool>, Arc<[AtomicU32; 2]>) = Default::default();
        let (client, pod) = (mesh.client().clone(), mesh.pod("client")?.name);
        let (ends, counted) = (stop.clone(), counts.clone());
        let thread = std::thread::spawn(move || {
            let url = "http://web:8080/";
            let command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url];
            while !ends.load(Ordering::Relaxed) {
                let answer = client.output(&Exec::new(&pod, command))?;
                counted[0].fetch_add(1, Ordering::Relaxed);
                if answer.stdout != b"200" {
                    counted[1].fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        Ok(Self {
            stop,
            counts,
            thread,
        })
    }

    /// How many were asked, and how many of them failed.
    fn stop(self) -> anyhow::Result<(u32, u32)> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.ok().context("the load panicked")??;
        let [asked, failed] = &*self.counts;
        Ok((
            asked.load(Ordering::Relaxed),
            failed.load(Ordering::Relaxed),
        ))
    }
}
