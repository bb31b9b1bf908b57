//! The way to a controller in Kubernetes: a port of loopback from which requests go through the API server to a pod of the
//! controller (`pods/proxy`), so that every command asks there as it asks anywhere else.
//!
//! Whoever asks at that port shows a key of this process. The controller is shown a token of an account whose rights say what
//! may be seen, made by the API server for a few minutes; the user's own credentials go to nobody else.

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use weft_control::install::live::Live;
use weft_control::kube::{Client, connect};
use weft_control::live::MAX_BODY;
use weft_control::traffic::api::FORWARDED;
use weft_proxy_api::names::{CONTROL_ACCOUNT, ports};

/// How long a token is asked for: the least that API servers give.
const TOKEN_LIFE: Duration = Duration::from_secs(600);
/// A token that is older is not used for another request.
const TOKEN_USE: Duration = Duration::from_secs(300);
/// For how long a pod of the controller is taken to be there: a dashboard outlives it.
const POD_USE: Duration = Duration::from_secs(5);
/// How long the way may take to open.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a head may take.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Where it is open, and the key; it stays as long as this process.
static OPEN: Mutex<Option<(SocketAddr, String)>> = Mutex::new(None);

/// Opens the way, unless it is open.
pub(super) fn open(settings: &connect::Settings, account: &str) -> Result<(SocketAddr, String)> {
    let mut open = OPEN.lock();
    if let Some(known) = open.as_ref() {
        return Ok(known.clone());
    }
    let (opened, opening) = mpsc::sync_channel(1);
    let (settings, account) = (settings.clone(), account.to_owned());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            match Forward::new(&settings, account).await {
                Ok((forward, listener, at)) => {
                    let _ = opened.send(Ok((at, forward.key.clone())));
                    Arc::new(forward).run(listener).await;
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        });
    });
    let opening = opening.recv_timeout(PATIENCE);
    let known = opening.map_err(|_| anyhow!("the API server takes too long"))??;
    *open = Some(known.clone());
    Ok(known)
}

struct Forward {
    client: Client,
    /// Path of the pods of the controller's namespace below the API server's.
    pods: String,
    /// The pod that is asked, and when it was seen to run.
    pod: Mutex<Option<(String, Instant)>>,
    /// Path where a token is made.
    account: String,
    token: Mutex<Option<(String, Instant)>>,
    key: String,
}

impl Forward {
    async fn new(
        settings: &connect::Settings,
        account: String,
    ) -> Result<(Self, TcpListener, SocketAddr)> {
        let client = connect::client(settings).await?;
        let namespace = &settings.namespace;
        let forward = Self {
            client,
            pods: format!("/api/v1/namespaces/{namespace}/pods"),
            pod: Mutex::default(),
            account: format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"),
            token: Mutex::new(None),
            key: key()?,
        };
        // Say at once what is missing.
        forward.pod().await?;
        forward.token().await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let at = listener.local_addr()?;
        Ok((forward, listener, at))
    }

    async fn run(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((tcp, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await; // out of descriptors: not in a circle
                continue;
            };
            let this = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let this = this.clone();
                    async move { Ok::<_, Infallible>(this.answer(request).await) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new())
                    .header_read_timeout(HEAD_LIMIT);
                let _ = http.serve_connection(TokioIo::new(tcp), service).await; // whoever asked has left
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let shown = request.headers().get(header::AUTHORIZATION);
        let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        // In constant time: how much of it was right must not be told.
        let knows = |shown: &[u8]| {
            aws_lc_rs::constant_time::verify_slices_are_equal(shown, self.key.as_bytes()).is_ok()
        };
        if !shown.is_some_and(knows) {
            return said(
                StatusCode::UNAUTHORIZED,
                "this is a way for one process only",
            );
        }
        match self.forward(request).await {
            Ok(answer) => answer,
            Err(error) => said(StatusCode::BAD_GATEWAY, &format!("{error:#}")),
        }
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|error| anyhow!(error))?.to_bytes();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let (pods, pod, port) = (&self.pods, self.pod().await?, ports::CONTROL_ADMIN);
        // The API server keeps `authorization` to itself.
        let mut on = Request::builder()
            .method(head.method)
            .uri(format!("{pods}/{pod}:{port}/proxy{path}"))
            .header(FORWARDED, format!("Bearer {}", self.token().await?));
        if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
            on = on.header(header::CONTENT_TYPE, kind);
        }
        let answer = self.client.send(on.body(body.to_vec().into())?).await?;
        let mut fresh = Response::builder().status(answer.status());
        if let Some(kind) = answer.headers().get(header::CONTENT_TYPE) {
            fresh = fresh.header(header::CONTENT_TYPE, kind);
        }
        let body = answer.into_body().map_err(Into::into);
        Ok(fresh.body(body.boxed_unsync())?)
    }

    /// The pod of the controller for the next request: the one that was asked before, as long as it is as good as another.
    async fn pod(&self) -> Result<String> {
        let known = self.pod.lock().clone();
        if let Some((pod, since)) = &known
            && since.elapsed() < POD_USE
        {
            return Ok(pod.clone());
        }
        let selector = format!("app.kubernetes.io%2Fcomponent%3D{CONTROL_ACCOUNT}");
        let url = format!("{}?labelSelector={selector}", self.pods);
        let pods = Live::new(self.client.clone()).get(&url).await?;
        let before = known.as_ref().map(|(pod, _)| pod.as_str());
        let pod = running(&pods.unwrap_or_default(), before)
            .with_context(|| format!("no pod of the controller runs at {}", self.pods))?;
        *self.pod.lock() = Some((pod.clone(), Instant::now()));
        Ok(pod)
    }

    /// A token for the next request.
    async fn token(&self) -> Result<String> {
        if let Some((token, since)) = &*self.token.lock()
            && since.elapsed() < TOKEN_USE
        {
            return Ok(token.clone());
        }
        let asked = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_LIFE.as_secs()},
        });
        let request = Request::post(&self.account)
            .header(header::CONTENT_TYPE, "application/json")
            .body(asked.to_string().into_bytes())?;
        let made: Value = self.client.request(request).await.with_context(|| {
            format!("no token by {}: it takes an account that may see the traffic (meshctl install makes weft-viewer), and the right to create its token", self.account)
        })?;
        let Some(token) = made["status"]["token"].as_str() else {
            bail!("the API server made no token");
        };
        let token = token.to_owned();
        *self.token.lock() = Some((token.clone(), Instant::now()));
        Ok(token)
    }
}

/// Name of a pod that runs and is ready, else of one that runs; of several the one `before`.
fn running(pods: &Value, before: Option<&str>) -> Option<String> {
    let all = pods["items"].as_array()?;
    let runs = |pod: &&Value| pod["status"]["phase"] == "Running";
    let is_ready = |pod: &&Value| {
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
    };
    let name = |pod: &Value| pod["metadata"]["name"].as_str().map(str::to_owned);
    let one_of = |all: Vec<&Value>| {
        let same = all.iter().find(|pod| name(pod).as_deref() == before);
        same.or(all.first()).copied().and_then(name)
    };
    let running: Vec<&Value> = all.iter().filter(runs).collect();
    let ready = running.iter().copied().filter(|pod| is_ready(pod));
    one_of(ready.collect()).or_else(|| one_of(running))
}

/// 128 bits that nobody can guess.
fn key() -> Result<String> {
    let mut bytes = [0; 16];
    let filled = aws_lc_rs::rand::fill(&mut bytes);
    filled.map_err(|_| anyhow!("no random numbers"))?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

fn said(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::from(format!("{text}\n")).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_pod_goes_before_one_that_only_runs() {
        let pod = |name: &str, phase: &str, ready: &str| {
            json!({
                "metadata": {"name": name},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
            })
        };
        let (gone, starting) = (pod("a", "Failed", "True"), pod("b", "Running", "False"));
        let of = |all: &[&Value]| running(&json!({ "items": all }), None);
        let (ready, other) = (pod("c", "Running", "True"), pod("d", "Running", "True"));
        let both = json!({"items": [&ready, &other, &starting]});
        for (before, expected) in [("d", "d"), ("b", "c"), ("gone", "c")] {
            let found = running(&both, Some(before));
            assert_eq!(found.as_deref(), Some(expected), "{before}");
        }
        assert_eq!(of(&[&gone, &starting, &ready]).as_deref(), Some("c"));
        assert_eq!(of(&[&gone, &starting]).as_deref(), Some("b"));
        assert_eq!(of(&[&gone]), None);
    }
}
