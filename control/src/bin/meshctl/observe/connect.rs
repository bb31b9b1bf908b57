//! The way to the controller's API: through the node on this machine, to an address, or through an API server.

use super::forward;
use crate::install::Cluster;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use weft_control::local::{Client, Rung, default_state};
use weft_control::peers::Controllers;
use weft_control::state::OBSERVE_TOKEN;
use weft_control::traffic::Report;
use weft_proxy_api::names::{SYSTEM_NAMESPACE, VIEWER_ACCOUNT, ports};

/// The most an answer may say.
const MAX_ANSWER: u64 = 256 << 20;
/// The most that is read of a head, or of a refusal.
const MAX_HEAD: u64 = 16 << 10;
/// How long the controller may be silent: more than it takes to read its source and hear its proxies.
const PATIENCE: Duration = Duration::from_secs(20);
/// What else there is to ask than the node on this machine.
const ELSEWHERE: &str = "no node of meshctl local answers; a controller in Kubernetes is found by --kubeconfig or --context, \
    any other by --control HOST:PORT --token-file FILE";

/// Where the controller is
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Namespace of the controller in Kubernetes
    #[arg(long, value_name = "NAME", default_value = SYSTEM_NAMESPACE)]
    pub(crate) system_namespace: String,
    /// Account in that namespace whose rights to see the traffic are used in Kubernetes
    #[arg(long, value_name = "NAME", default_value = VIEWER_ACCOUNT)]
    viewer: String,
}

/// Where the controller is, if it is not in Kubernetes
#[derive(Debug, Clone, Args)]
pub(crate) struct Node {
    /// Folder of the node on this machine (meshctl local) [default: as meshctl local]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Admin address of a controller, in place of the node on this machine
    #[arg(long, value_name = "HOST:PORT", requires = "token_file", conflicts_with_all = ["kubeconfig", "context"])]
    control: Option<String>,
    /// File with its token: observe.token in the controller's state folder
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The controller could not be reached: not the same as an answer one does not like.
#[derive(Debug)]
pub(crate) struct Unreachable(pub(crate) anyhow::Error);

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the mesh cannot be reached: {:#}", self.0)
    }
}

impl std::error::Error for Unreachable {}

impl Target {
    /// The whole report, of fresh figures.
    pub(crate) fn report(&self, window: super::Window) -> Result<Report> {
        let report = self.traffic(&format!("fresh&window={}", window.query()))?;
        if let Some(missing) = report.controllers.as_ref().and_then(Controllers::missing) {
            eprintln!("meshctl: {missing}");
        }
        Ok(report)
    }

    /// What `/api/v1/traffic` answers to a query.
    pub(crate) fn traffic(&self, query: &str) -> Result<Report> {
        let text = self.get(&format!("/api/v1/traffic?{query}"))?;
        serde_json::from_str(&text).context("the controller's answer cannot be read")
    }

    /// Did somebody say where it is?
    pub(crate) fn is_named(&self) -> bool {
        self.node.state.is_some() || self.node.control.is_some()
    }

    /// Does a node run on this machine?
    pub(crate) fn is_there(&self) -> bool {
        self.node.client().is_ok()
    }

    /// Body of the answer to a GET.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        self.call("GET", path)
    }

    /// The answer to an order.
    pub(crate) fn post(&self, path: &str) -> Result<String> {
        self.call("POST", path)
    }

    fn call(&self, method: &str, path: &str) -> Result<String> {
        let (stream, token) = self.open().map_err(Unreachable)?;
        answer(exchange(stream, &token, method, path))
    }

    /// Body of the answer to a POST of JSON, which may take this long.
    pub(crate) fn post_json(&self, path: &str, body: &str, patience: Duration) -> Result<String> {
        let (mut stream, token) = self.open().map_err(Unreachable)?;
        let head = format!(
            "POST {path} HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            token.trim(),
            body.len()
        );
        let mut sent = || {
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            stream.write_all(head.as_bytes())?;
            Ok(stream.write_all(body.as_bytes())?)
        };
        sent().map_err(Unreachable)?;
        answer(rest(stream))
    }

    /// The body of a GET, as it comes.
    pub(crate) fn stream(&self, path: &str) -> Result<BufReader<TcpStream>> {
        let (mut stream, token) = self.open().map_err(Unreachable)?;
        ask(&mut stream, &token, "GET", path).map_err(Unreachable)?;
        stream.set_read_timeout(None)?;
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let most = MAX_HEAD - u64::try_from(head.len()).unwrap_or(0);
            let read = (&mut stream).take(most).read_line(&mut head)?;
            if read == 0 {
                return Err(Unreachable(anyhow!("this is no HTTP answer")).into());
            }
        }
        match head.split(' ').nth(1) {
            Some("200") => Ok(stream),
            status => {
                let mut body = String::new();
                stream.take(MAX_HEAD).read_to_string(&mut body)?;
                bail!("{} ({})", body.trim(), status.unwrap_or("no status"))
            }
        }
    }

    /// A connection, and the token.
    pub(crate) fn open(&self) -> Result<(TcpStream, String)> {
        let ours = self.is_named() || self.is_there();
        if !self.cluster.is_named() && ours {
            return self.node.open();
        }
        let settings = self.cluster.settings(&self.system_namespace);
        let open = forward::open(&settings, &self.viewer);
        let (at, key) = match self.cluster.is_named() {
            true => open?,
            false => open.context(ELSEWHERE)?,
        };
        Ok((TcpStream::connect_timeout(&at, PATIENCE)?, key))
    }
}

impl From<Node> for Target {
    fn from(node: Node) -> Self {
        Self {
            node,
            cluster: Cluster::default(),
            system_namespace: SYSTEM_NAMESPACE.to_owned(),
            viewer: VIEWER_ACCOUNT.to_owned(),
        }
    }
}

impl Node {
    fn client(&self) -> Result<Client> {
        let state = self.state.clone().unwrap_or_else(default_state);
        Client::open(&std::path::absolute(state)?)
    }

    fn open(&self) -> Result<(TcpStream, String)> {
        let token = |file: &PathBuf| {
            let text = std::fs::read_to_string(file);
            text.with_context(|| format!("cannot read the token {}", file.display()))
        };
        if let (Some(address), Some(file)) = (&self.control, &self.token_file) {
            let token = token(file)?;
            let addresses = address
                .to_socket_addrs()
                .with_context(|| format!("{address} is no address"))?;
            let mut last = anyhow!("{address} has no address");
            for at in addresses {
                match TcpStream::connect_timeout(&at, PATIENCE) {
                    Ok(stream) => return Ok((stream, token)),
                    Err(error) => last = anyhow!(error).context(at.to_string()),
                }
            }
            return Err(last);
        }
        let client = self.client().context(ELSEWHERE)?;
        let status = client.status()?;
        let ip = match status.rung {
            Rung::Loopback => status.control_addr.ip(),
            _ => Ipv4Addr::LOCALHOST.into(),
        };
        let admin = SocketAddr::new(ip, ports::CONTROL_ADMIN);
        let token = token(&client.state().join("control").join(OBSERVE_TOKEN))?;
        Ok((client.dial(None, admin)?, token))
    }
}

fn ask(stream: &mut TcpStream, token: &str, method: &str, path: &str) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!(
        "{method} {path} HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n",
        token.trim()
    );
    Ok(stream.write_all(request.as_bytes())?)
}

fn exchange(mut stream: TcpStream, token: &str, method: &str, path: &str) -> Result<String> {
    ask(&mut stream, token, method, path)?;
    rest(stream)
}

/// The body of an answer of success.
fn answer(read: Result<String>) -> Result<String> {
    let answer = read.map_err(Unreachable)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| Unreachable(anyhow!("this is no HTTP answer")))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        status => bail!("{} ({})", body.trim(), status.unwrap_or("no status")),
    }
}

fn rest(stream: TcpStream) -> Result<String> {
    let mut answer = String::new();
    stream
        .take(MAX_ANSWER)
        .read_to_string(&mut answer)
        .context("the answer broke off")?;
    Ok(answer)
}
