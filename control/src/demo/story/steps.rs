//! The steps of the demonstration. Each says what it expects, does one thing, watches, and compares.

use super::{READY, Teller};
use crate::demo::app::Seen;
use crate::demo::manifests::{NAMESPACE, WEB_TO_FRONT, split};
use crate::demo::observe::{Look, until};
use crate::local::{self, Exec};
use anyhow::{Context, bail};
use std::time::{Duration, Instant};

/// So long is looked until it is asked whether a change shows; twice in a row it has to.
const GLANCE: Duration = Duration::from_millis(500);
/// Fewer answers than these tell nothing of a split.
const TELLING: u64 = 40;
/// Standard deviations within which a split seems to be in force: whoever is unlucky looks again.
const SEEMS: f64 = 4.0;
/// The same for the verdict, on which there is no second look: chance goes beyond it less than once in a million times.
const SURE: f64 = 6.0;

impl Teller<'_> {
    /// All of them, in the order in which they are told.
    pub(super) fn tell(&mut self) -> anyhow::Result<()> {
        self.split_step("traffic split 90/10", 90, 10, 0.25)?;
        self.split_step("traffic split shifted to 50/50", 50, 50, 0.2)?;
        self.roll()?;
        self.fail()?;
        self.forbid()?;
        self.permit()?;
        self.stranger()
    }

    /// Watches until a change shows in what is answered: within a second or two, but a busy machine takes longer. `shows`
    /// is asked about the answers of a while, and says nothing (`None`) of too few.
    fn settle(
        &mut self,
        change: &Look,
        name: &str,
        shows: impl Fn(&Seen) -> Option<bool>,
    ) -> anyhow::Result<Look> {
        let start = Instant::now();
        let (mut from, mut now, mut shown) = (change.clone(), change.clone(), 0);
        while shown < 2 && start.elapsed() < READY {
            now = self.watch(&now, GLANCE, name)?;
            if let Some(holds) = shows(&now.load.since(&from.load)) {
                shown = if holds { shown + 1 } else { 0 };
                from = now.clone();
            }
        }
        Ok(now)
    }

    /// Weights take effect, and no request fails while they do.
    fn split_step(
        &mut self,
        name: &'static str,
        v1: u32,
        v2: u32,
        share: f64,
    ) -> anyhow::Result<()> {
        let change = self.look()?;
        self.client.apply("split.yaml", &split(v1, v2))?;
        self.weights = (v1, v2);
        let wanted = f64::from(v2) / f64::from(v1 + v2);
        let settled = self.settle(&change, name, |seen| {
            let (count, total) = of_second(seen);
            (total >= TELLING).then(|| within_binomial(SEEMS, count, total, wanted))
        })?;
        let end = self.watch(&settled, self.part(share), name)?;
        let failed = end.load.since(&change.load).failed();
        let (count, total) = of_second(&end.load.since(&settled.load));
        let held = total > 0 && failed == 0 && within_binomial(SURE, count, total, wanted);
        self.unexpected += failed;
        let expected = format!("v2 gets {:.0} %, 0 failed", wanted * 100.0);
        let share = 100.0 * count as f64 / total.max(1) as f64;
        self.report(
            name,
            expected,
            format!("v2 got {share:.1} % of {total}, {failed} failed"),
            held,
        );
        Ok(())
    }

    /// Pods are replaced one after another, and no request fails.
    fn roll(&mut self) -> anyhow::Result<()> {
        const NAME: &str = "front rolled, pod by pod";
        let before = self.look()?;
        self.client.restart("Deployment", NAMESPACE, "front")?;
        let client = self.client.clone();
        let rolled = std::thread::spawn(move || client.wait(READY));
        let mut end = before.clone();
        while !rolled.is_finished() {
            end = self.watch(&end, Duration::from_millis(500), NAME)?;
        }
        rolled
            .join()
            .ok()
            .context("the roll-out was not followed to its end")??;
        end = self.watch(&end, self.part(0.1), NAME)?;
        let seen = end.load.since(&before.load);
        self.unexpected += seen.failed();
        let held = seen.failed() == 0 && seen.requests > 0;
        let saw = failures(&seen, &end);
        self.report(NAME, "0 failed".into(), saw, held);
        Ok(())
    }

    /// One of three backends fails every call: the balancer gives it no more traffic, the breaker takes it out, and it
    /// comes back when it is well.
    fn fail(&mut self) -> anyhow::Result<()> {
        const NAME: &str = "one colour pod fails every call";
        // Two callers, at most seven failures in a row each, and a few probes.
        const MOST: u64 = 30;
        let before = self.look()?;
        let pods = self.client.pods()?;
        let version = |pod: &&local::PodInfo| {
            pod.labels
                .get("version")
                .is_some_and(|version| version == "v1")
        };
        let pod = pods
            .iter()
            .filter(|pod| pod.service_account == "colour")
            .find(version);
        let pod = pod.context("no pod of colour-v1")?.name.clone();
        self.order(&pod, "on")?;
        until(self.client, READY, |look| {
            look.load.since(&before.load).failed() > 0
        })?;
        let end = self.watch(&before, self.part(0.2), NAME)?;
        self.order(&pod, "off")?;
        let seen = end.load.since(&before.load);
        let held = (1..=MOST).contains(&seen.failed()) && seen.ok > 0;
        let share = 100.0 * seen.failed() as f64 / seen.requests.max(1) as f64;
        let ejections = end.ejections - before.ejections;
        let saw = format!(
            "{} of {} failed ({share:.1} %), {ejections} ejections",
            seen.failed(),
            seen.requests
        );
        self.report(
            NAME,
            format!("it is set aside: at most {MOST} failed"),
            saw,
            held,
        );
        until(self.client, Duration::from_secs(15), |look| {
            look.ejected_now == 0.0
        })?;
        Ok(())
    }

    fn order(&self, pod: &str, state: &str) -> anyhow::Result<()> {
        let mut exec = Exec::new(pod, ["meshctl", "demo-app", "fail", state]);
        exec.namespace = NAMESPACE.to_owned();
        exec.container = Some("app".to_owned());
        let output = self.client.output(&exec)?;
        if output.code != 0 {
            bail!(
                "cannot make {pod} fail: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Without its TrafficTarget, web may not call front any more.
    fn forbid(&mut self) -> anyhow::Result<()> {
        const NAME: &str = "permission web → front removed";
        let before = self.look()?;
        self.client.delete_file("web-to-front.yaml")?;
        let refused = |seen: &Seen| seen.status.get(&403).copied().unwrap_or(0);
        let settled = self.settle(&before, NAME, |seen| {
            (seen.requests > 0).then(|| refused(seen) == seen.requests)
        })?;
        let end = self.watch(&settled, self.part(0.1), NAME)?;
        let seen = end.load.since(&settled.load);
        let refused = refused(&seen);
        let held = seen.requests > 0 && refused == seen.requests;
        let saw = format!("{refused} of {} refused", seen.requests);
        self.report(NAME, "every request refused with 403".into(), saw, held);
        Ok(())
    }

    /// With it, it may.
    fn permit(&mut self) -> anyhow::Result<()> {
        const NAME: &str = "permission web → front restored";
        let before = self.look()?;
        self.client.apply("web-to-front.yaml", WEB_TO_FRONT)?;
        let settled = self.settle(&before, NAME, |seen| {
            (seen.requests > 0).then(|| seen.failed() == 0)
        })?;
        let end = self.watch(&settled, self.part(0.15), NAME)?;
        let seen = end.load.since(&settled.load);
        self.unexpected += seen.failed();
        let held = seen.requests > 0 && seen.failed() == 0;
        let saw = failures(&seen, &end);
        self.report(NAME, "0 failed once it is in force".into(), saw, held);
        Ok(())
    }

    /// All the while, a meshed pod that nobody allowed anything got nothing, and everything was encrypted.
    fn stranger(&mut self) -> anyhow::Result<()> {
        let end = self.look()?;
        let (ok, refused) = (
            end.stranger.ok,
            end.stranger.status.get(&403).copied().unwrap_or(0),
        );
        let saw = format!("{ok} served, {refused} refused");
        self.report(
            "a stranger calls front",
            "0 served".into(),
            saw,
            ok == 0 && refused > 0,
        );
        let share = self.tls / self.traffic.max(1.0);
        let held = self.traffic > 0.0 && self.tls == self.traffic;
        let saw = format!("{:.4} of {} requests and streams", share, self.traffic);
        self.report("mutual TLS between meshed pods", "1.0".into(), saw, held);
        Ok(())
    }
}

/// Good answers of the second version, and of both.
fn of_second(seen: &Seen) -> (u64, u64) {
    let second = seen.versions.get("v2").copied().unwrap_or(0);
    (second, seen.versions.values().sum())
}

/// Within so many standard deviations (and one request) of what chance allows.
fn within_binomial(deviations: f64, count: u64, total: u64, wanted: f64) -> bool {
    let (total, count) = (total as f64, count as f64);
    let deviation = (total * wanted * (1.0 - wanted)).sqrt();
    (count - total * wanted).abs() <= deviations * deviation + 1.0
}

/// How many failed, and why the last one did.
fn failures(seen: &Seen, end: &Look) -> String {
    let failed = seen.failed();
    format!("{failed} failed of {}{}", seen.requests, last(end, failed))
}

fn last(look: &Look, failed: u64) -> String {
    if failed == 0 {
        String::new()
    } else {
        format!(" (last: {})", look.load.last_error)
    }
}

#[cfg(test)]
mod tests {
    use super::{SEEMS, SURE, within_binomial};

    #[test]
    fn chance_is_told_from_a_wrong_split() {
        for deviations in [SEEMS, SURE] {
            let fits = |count, wanted| within_binomial(deviations, count, 1000, wanted);
            assert!(fits(100, 0.1));
            assert!(fits(130, 0.1));
            assert!(!fits(160, 0.1));
            assert!(!fits(0, 0.1));
            assert!(fits(0, 0.0));
            assert!(!fits(500, 0.0));
        }
        assert!(!within_binomial(SEEMS, 150, 1000, 0.1));
        assert!(!within_binomial(SEEMS, 4, 40, 0.5), "the split before");
    }
}
