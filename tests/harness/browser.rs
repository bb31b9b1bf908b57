//! A headless Chromium, driven by its DevTools protocol over two pipes: messages are JSON, each ends with a zero byte.

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The most one message may say.
const MAX_MESSAGE: usize = 16 << 20;

/// A browser with one page; ends when dropped.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: String,
    serial: u64,
    errors: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Opens the page.
    pub fn open(url: &str) -> anyhow::Result<Self> {
        let profile = tempfile::tempdir()?;
        // The pipes must be the descriptors 3 and 4.
        let script = "exec chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-sync \
                      --disable-background-networking --disable-component-update --disable-dev-shm-usage \
                      --remote-debugging-pipe --window-size=1400,900 --user-data-dir=\"$0\" about:blank \
                      3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = child.stdin.take().context("no pipe")?;
        let from = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut this = Self {
            child,
            to,
            from,
            session: String::new(),
            serial: 0,
            errors: Vec::new(),
            _profile: profile,
        };
        let made = this.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let how = json!({"targetId": made["targetId"], "flatten": true});
        let session = this.call("Target.attachToTarget", how)?;
        let session = session["sessionId"].as_str().context("no session")?;
        this.session = session.to_owned();
        for domain in ["Runtime", "Log", "Page"] {
            this.call(&format!("{domain}.enable"), json!({}))?;
        }
        this.call("Page.navigate", json!({"url": url}))?;
        Ok(this)
    }

    /// What an expression is worth on the page; promises are waited for.
    pub fn evaluate(&mut self, expression: &str) -> anyhow::Result<Value> {
        let how = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", how)?;
        ensure!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {answer}"
        );
        Ok(answer["result"]["value"].clone())
    }

    /// Presses a key and lets it go: `Tab`, `Enter`, `Escape`, an arrow (`ArrowDown`), or a character.
    pub fn press(&mut self, key: &str) -> anyhow::Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        let mut event = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code});
        match key {
            "Enter" => event["text"] = "\r".into(),
            one if one.chars().count() == 1 => event["text"] = one.into(),
            _ => {}
        }
        self.call("Input.dispatchKeyEvent", event)?;
        let event = json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", event).map(drop)
    }

    /// Errors of the console so far: exceptions, refused requests, breaches of the page's policy.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.serial += 1;
        let mut message = json!({"id": self.serial, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes())?;
        loop {
            let message = self.receive()?;
            if message["id"] == self.serial {
                ensure!(message.get("error").is_none(), "{method}: {message}");
                return Ok(message["result"].clone());
            }
            let params = &message["params"];
            let is_error = match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Runtime.consoleAPICalled") => params["type"] == "error",
                Some("Log.entryAdded") => params["entry"]["level"] == "error",
                _ => false,
            };
            if is_error {
                self.errors.push(params.to_string());
            }
        }
    }

    fn receive(&mut self) -> anyhow::Result<Value> {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes)?;
        if bytes.pop() != Some(0) {
            bail!("the browser ended");
        }
        ensure!(bytes.len() <= MAX_MESSAGE, "{} bytes", bytes.len());
        Ok(serde_json::from_slice(&bytes)?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.call("Browser.close", json!({})); // its own children end with it
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
