//! `meshctl dashboard`: the page on this machine, and behind it the controller's API. The controller's token stays in this
//! process; the page gets a key that is worth nothing once this process has ended.

use super::connect::{Target, Unreachable};
use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use weft_control::dashboard;
use weft_control::traffic::api::PREFIX;
use weft_proxy_api::names::ports;

/// Connections open at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a request's head may take.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// Serve the dashboard on this machine
#[derive(Debug, Args)]
pub(crate) struct DashboardArgs {
    /// Port to listen on; 0: any that is free
    #[arg(long, default_value_t = ports::WEB)]
    port: u16,
    /// Address to listen on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Another name browsers may use for it, as they write it (HOST or HOST:PORT); may be repeated
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    #[command(flatten)]
    target: Target,
}

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

struct Site {
    target: Target,
    key: String,
    hosts: Vec<String>,
}

/// Serves until it is told to stop.
pub(crate) fn run(args: DashboardArgs) -> Result<ExitCode> {
    args.target.get(&format!("{PREFIX}edges"))?; // says at once what is missing
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let at = SocketAddr::new(args.address, args.port);
        let listener = TcpListener::bind(at).await;
        let listener = listener.with_context(|| format!("cannot listen on {at}; --port"))?;
        let at = listener.local_addr()?;
        let mut hosts = args.allow_host;
        hosts.extend([at.to_string(), format!("localhost:{}", at.port())]);
        if at.port() == 80 {
            // Browsers leave it out.
            let plain = at.to_string();
            hosts.extend([plain.trim_end_matches(":80").to_owned(), "localhost".into()]);
        }
        let site = Site {
            target: args.target,
            key: key()?,
            hosts,
        };
        // A reader that has its line and leaves does not end the page.
        let _ = writeln!(
            std::io::stdout(),
            "The dashboard is at http://{at}/#key={}\nCtrl-C ends it.",
            site.key
        );
        tokio::select! {
            () = serve(Arc::new(site), listener) => {}
            stopped = tokio::signal::ctrl_c() => stopped?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// 128 bits that nobody can guess.
fn key() -> Result<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .ok()
        .context("no random numbers")?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

async fn serve(site: Arc<Site>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let Ok((tcp, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let site = site.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let site = site.clone();
                async move { Ok::<_, Infallible>(site.answer(&request).await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .max_buf_size(16 << 10);
            let _ = http.serve_connection(TokioIo::new(tcp), service).await; // a broken client is its own problem
            drop(slot);
        });
    }
}

impl Site {
    async fn answer<B>(&self, request: &Request<B>) -> Answer {
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        if !self.is_here(request.headers()) {
            return text(
                StatusCode::MISDIRECTED_REQUEST,
                "this is not the address it was told to serve; see --allow-host\n",
            );
        }
        if let Some(file) = dashboard::file(request.uri().path()) {
            return file.map(|body| body.map_err(|never| match never {}).boxed_unsync());
        }
        if !request.uri().path().starts_with(PREFIX) {
            return text(StatusCode::NOT_FOUND, "there is / and /api/v1/\n");
        }
        if !self.has_key(request.headers()) {
            return text(
                StatusCode::UNAUTHORIZED,
                "open the address that meshctl dashboard printed\n",
            );
        }
        let path = request.uri().path_and_query().map_or("/", |at| at.as_str());
        let mut answer = match self.forward(path).await {
            Ok(answer) => answer,
            Err(error) => text(StatusCode::BAD_GATEWAY, &format!("{error:#}\n")),
        };
        dashboard::guard(answer.headers_mut());
        answer
    }

    /// Asks the controller, with its token.
    async fn forward(&self, path: &str) -> Result<Answer> {
        let target = self.target.clone();
        let opened = tokio::task::spawn_blocking(move || target.open()).await?;
        let (stream, token) = opened.map_err(Unreachable)?;
        stream.set_nonblocking(true)?;
        let io = TokioIo::new(TcpStream::from_std(stream)?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        // It ends with the answer, or when the browser stops reading it.
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let mut fresh = Response::new(());
        *fresh.status_mut() = answer.status();
        if let Some(kind) = answer.headers().get(header::CONTENT_TYPE) {
            let kind = kind.clone();
            fresh.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        Ok(fresh.map(|()| answer.into_body().boxed_unsync()))
    }

    fn is_here(&self, fields: &HeaderMap) -> bool {
        let host = fields.get(header::HOST).and_then(|host| host.to_str().ok());
        host.is_some_and(|host| self.hosts.iter().any(|at| at.eq_ignore_ascii_case(host)))
    }

    fn has_key(&self, fields: &HeaderMap) -> bool {
        let shown = fields.get(header::AUTHORIZATION);
        let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        // In constant time: how much of it was right must not be told.
        shown.is_some_and(|shown| {
            aws_lc_rs::constant_time::verify_slices_are_equal(shown, self.key.as_bytes()).is_ok()
        })
    }
}

fn text(status: StatusCode, text: &str) -> Answer {
    let body = Full::from(text.to_owned()).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    dashboard::guard(response.headers_mut());
    response
}
