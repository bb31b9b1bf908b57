//! A controller as a process, and what it uses.

use super::Failure;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub(crate) struct Controller {
    child: Child,
    pub(crate) address: SocketAddr,
}

#[derive(Default)]
pub(crate) struct Usage {
    /// Memory now, and at most so far, in bytes.
    pub(crate) rss: u64,
    pub(crate) most: u64,
    pub(crate) cpu: Duration,
}

impl Controller {
    /// Starts `weft-control`, the one that was named or was built beside this example, and waits until it serves.
    pub(crate) async fn start(
        program: Option<&Path>,
        kubeconfig: &Path,
        state: &Path,
        listen: &str,
    ) -> Result<Self, Failure> {
        let own = std::env::current_exe()?;
        let target = own.parent().and_then(Path::parent);
        let beside = target.ok_or("no target folder")?.join("weft-control");
        let anywhere = "127.0.0.1:0";
        let mut child = Command::new(program.unwrap_or(&beside))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--state")
            .arg(state)
            .args(["--listen", listen, "--admin-addr", anywhere])
            .args(["--access", "strict"])
            .env("WEFT_CONTROL_LOG", "error")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let line = BufReader::new(stdout)
            .lines()
            .next_line()
            .await?
            .unwrap_or_default();
        let serving = line
            .split_once("serving on ")
            .ok_or_else(|| format!("it says {line:?}"))?;
        let address = serving.1.split(',').next().unwrap_or_default().parse()?;
        Ok(Self { child, address })
    }

    pub(crate) async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.child.id().unwrap_or_default().to_string())
    }
}

impl Usage {
    /// What this program uses by itself: where it takes a whole core, it is what is measured.
    pub(crate) fn own() -> Self {
        Self::of("self")
    }

    fn of(process: &str) -> Self {
        let read = |file: &str| {
            let path = format!("/proc/{process}/{file}");
            std::fs::read_to_string(path).unwrap_or_default()
        };
        let (status, stat) = (read("status"), read("stat"));
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or_default()
                << 10
        };
        // After the name in brackets: user and system time are fields 14 and 15, in hundredths of a second.
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Self {
            rss: bytes("VmRSS:"),
            most: bytes("VmHWM:"),
            cpu: Duration::from_millis(ticks * 10),
        }
    }
}
