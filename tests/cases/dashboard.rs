//! The dashboard, in a real browser: what it shows follows the traffic, and nothing is wrong in its console.

use crate::Case;
use anyhow::{Context, bail, ensure};
use harness::browser::Browser;
use harness::{Access, Mesh, echo, eventually, program};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

pub(crate) const CASES: &[Case] = &[
    (
        "the_graph_follows_the_traffic",
        &["chromium", "curl"],
        follows,
    ),
    ("strangers_are_refused", &[], refused),
];

/// `meshctl dashboard`, until dropped.
pub(crate) struct Dashboard {
    child: Child,
    /// As printed.
    url: String,
}

impl Dashboard {
    fn start(mesh: &Mesh) -> anyhow::Result<Self> {
        let meshctl = program("meshctl")?.display().to_string();
        let state = mesh.client().state().display().to_string();
        Self::start_by(&[&meshctl, "dashboard", "--port", "0", "--state", &state])
    }

    /// By this command.
    pub(crate) fn start_by(words: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let url = line.split(' ').next_back().unwrap_or_default().trim();
        let url = url.to_owned();
        let this = Self { child, url };
        ensure!(this.url.starts_with("http://127.0.0.1:"), "{line}");
        Ok(this)
    }

    /// The whole answer to a GET.
    fn get(&self, path: &str, fields: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.host()?)?;
        let request = format!("GET {path} HTTP/1.1\r\nconnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    pub(crate) fn host(&self) -> anyhow::Result<&str> {
        let (host, _) = self.url["http://".len()..]
            .split_once('/')
            .context("no path")?;
        Ok(host)
    }

    pub(crate) fn key(&self) -> anyhow::Result<&str> {
        Ok(self.url.split_once("#key=").context("no key")?.1)
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the expression is true.
fn becomes(page: &mut Browser, what: &str, expression: &str) -> anyhow::Result<()> {
    eventually(what, || {
        let value = page.evaluate(expression)?;
        if value != true {
            let shown = page.evaluate("document.body.innerText")?;
            bail!("{value}; shown: {shown}");
        }
        Ok(())
    })
}

fn follows() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 1), &echo("client", 1)])?;
    let dashboard = Dashboard::start(&mesh)?;
    let mut page = Browser::open(&dashboard.url)?;
    let line = "document.querySelector(\".edge[data-name='default/deploy/client default/deploy/web'] text\")";
    becomes(
        &mut page,
        "both workloads are shown",
        "document.querySelectorAll('.node').length === 2",
    )?;
    becomes(&mut page, "no calls yet", &format!("{line} === null"))?;
    ensure!(
        page.evaluate("location.hash")? == "#graph",
        "the key does not stay in the address"
    );
    keyboard(&mut page)?;
    let calls = |path: &str| {
        let url = format!("http://web:8080{path}");
        mesh.exec("client", &["curl", "-s", "-o", "/dev/null", &url])
    };
    // Ten seconds are shown: on a busy machine some calls are over before they are.
    eventually("the calls are shown with their rate", || {
        calls("/[1-100]")?;
        let shown = page.evaluate(&format!("/[1-9].*[/]s/.test({line}?.textContent)"))?;
        ensure!(shown == true, "{shown}");
        Ok(())
    })?;
    becomes(
        &mut page,
        "they are secured",
        &format!("!{line}.parentNode.classList.contains('plain')"),
    )?;
    becomes(
        &mut page,
        "and end when they end",
        &format!("{line}.textContent === ''"),
    )?;
    let start = "document.getElementById('tab-tap').click();
        document.querySelector('#tap [name=resource]').value = 'deploy/web';
        document.getElementById('tap-toggle').click()";
    page.evaluate(start)?;
    becomes(
        &mut page,
        "the tap has begun",
        "document.getElementById('tap-state').textContent.includes('seen')",
    )?;
    calls("/tapped/[1-5]?token=secret")?;
    becomes(
        &mut page,
        "the tap shows requests",
        "document.querySelectorAll('#tap-table tbody tr').length === 5
            && document.getElementById('tap-table').textContent.includes('GET /tapped/5')",
    )?;
    ensure!(
        page.evaluate("document.body.textContent.includes('secret')")? == false,
        "queries are not shown"
    );
    page.evaluate("document.getElementById('tap-toggle').click()")?;
    becomes(
        &mut page,
        "the tap ends",
        "document.getElementById('tap-state').textContent === 'stopped'",
    )?;
    ensure!(page.errors().is_empty(), "{:#?}", page.errors());
    Ok(())
}

/// The element with the focus, by what a reader would call it, and whether one sees that it has it.
const FOCUSED: &str = "(() => {
    const at = document.activeElement, box = at.querySelector('.box');
    const ring = getComputedStyle(at).outlineStyle !== 'none' || (box && getComputedStyle(box).strokeWidth !== '1px');
    return [at.id || at.dataset.name || at.name || at.tagName, at.matches(':focus-visible') && ring];
})()";

/// Every view and all that can be done in the graph, without a mouse.
fn keyboard(page: &mut Browser) -> anyhow::Result<()> {
    for (key, view) in [
        "services", "routes", "splits", "security", "proxies", "tap", "graph",
    ]
    .iter()
    .zip(["2", "3", "4", "5", "6", "7", "1"])
    .map(|(view, key)| (key, view))
    {
        page.press(key)?;
        let shown = format!("!document.getElementById('view-{view}').hidden");
        ensure!(page.evaluate(&shown)? == true, "{key} shows {view}");
    }
    // From the tab of the view to the last button of the graph, and each of them is seen to have it.
    let mut order = Vec::new();
    for _ in 0..30 {
        let at = page.evaluate(FOCUSED)?;
        ensure!(at[1] == true, "{at} has the focus unseen");
        order.push(at[0].as_str().unwrap_or_default().to_owned());
        if at[0] == "whole" {
            break;
        }
        page.press("Tab")?;
    }
    let controls = ["tab-graph", "filter", "namespace", "window", "pause"];
    ensure!(order.starts_with(&controls.map(String::from)), "{order:?}");
    let last = ["nearer", "farther", "whole"].map(String::from);
    ensure!(order.ends_with(&last) && order.len() == 9, "{order:?}");
    // In the graph arrows walk between boxes, Enter tells of one, Escape ends that.
    page.evaluate("document.querySelector('.node[tabindex=\"0\"]').focus()")?;
    let told = "document.getElementById('details').hidden ? '' : document.querySelector('#details h2').textContent";
    let first = page.evaluate(FOCUSED)?[0].clone();
    page.press("Enter")?;
    ensure!(page.evaluate(told)? == first, "Enter tells of {first}");
    page.press("Escape")?;
    ensure!(page.evaluate(told)? == "", "Escape ends it");
    page.press("ArrowRight")?;
    let second = page.evaluate(FOCUSED)?[0].clone();
    ensure!(second != first, "an arrow walks on from {first}");
    let width = "Number(document.getElementById('graph').getAttribute('width'))";
    let before = page.evaluate(width)?.as_f64();
    page.press("+")?;
    ensure!(page.evaluate(width)?.as_f64() > before, "+ makes it larger");
    page.press("0")?;
    page.press("?")?;
    ensure!(
        page.evaluate("document.getElementById('help').open")? == true,
        "? shows the keys"
    );
    page.press("Escape")?;
    ensure!(
        page.evaluate("document.getElementById('help').open")? == false,
        "Escape closes them"
    );
    Ok(())
}

fn refused() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 1)])?;
    let dashboard = Dashboard::start(&mesh)?;
    let (host, key) = (dashboard.host()?, dashboard.key()?);
    let here = format!("host: {host}\r\n");
    let keyed = format!("{here}authorization: Bearer {key}\r\n");
    let api = "/api/v1/dashboard";
    for (path, fields, status) in [
        ("/", here.as_str(), "200"),
        ("/", "host: evil.example\r\n", "421"),
        (api, &here, "401"),
        (api, &keyed, "200"),
        (api, &keyed.replace(key, "x"), "401"),
        (api, &keyed.replace(host, "evil.example"), "421"),
        ("/api/v1/stat?resource=thing", &keyed, "400"),
        ("/nothing", &keyed, "404"),
    ] {
        let answer = dashboard.get(path, fields)?;
        let seen = answer.split(' ').nth(1);
        ensure!(seen == Some(status), "{path} {fields}: {answer}");
        let guarded = answer.contains("content-security-policy: default-src 'none'");
        ensure!(guarded, "{path} {fields}: {answer}");
    }
    Ok(())
}
