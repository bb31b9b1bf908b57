//! The application behind the proxies: HTTP/1.1 and h2c with bodies of fixed sizes, a unary call with trailers, and bytes.
//! One thread, so that it costs every peer the same.

use crate::cases::GRPC;
use crate::world::PORTS;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// First byte of a connection of bytes: what it is for. No letter, as no protocol of the web begins so.
pub(crate) const ECHO: u8 = 1;
pub(crate) const SINK: u8 = 2;
pub(crate) const SOURCE: u8 = 3;
/// An echoed message.
pub(crate) const MESSAGE: usize = 64;

pub(crate) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let [http1, http2, bytes] = PORTS;
        tokio::try_join!(accept(http1, http), accept(http2, http), accept(bytes, raw))?;
        Ok(())
    })
}

async fn accept<R>(port: u16, connection: fn(TcpStream) -> R) -> anyhow::Result<()>
where
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    let listener: TcpListener = socket.listen(4096)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream));
    }
}

async fn http(stream: TcpStream) -> anyhow::Result<()> {
    let mut start = [0; 4];
    while stream.peek(&mut start).await? < start.len() {
        anyhow::ensure!(stream.peek(&mut start).await? > 0, "closed");
        tokio::task::yield_now().await;
    }
    let service = service_fn(answer);
    let io = TokioIo::new(stream);
    if &start == b"PRI " {
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server
            .max_concurrent_streams(4_000)
            .initial_connection_window_size(16 << 20)
            .serve_connection(io, service)
            .await?;
    } else {
        hyper::server::conn::http1::Builder::new()
            .serve_connection(io, service)
            .await?;
    }
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    static LARGE: [u8; 10_000_000] = [b'x'; 10_000_000];
    let size = match request.uri().path() {
        "/1k" => 1_024,
        "/64k" => 65_536,
        "/10m" => LARGE.len(),
        GRPC => {
            // Answering before the message was read would reset the stream, which peers take for an attack.
            let _ = request.into_body().collect().await;
            return Ok(call());
        }
        _ => 2,
    };
    Ok(Response::new(Answer {
        data: Some(Bytes::from_static(&LARGE[..size])),
        trailers: None,
    }))
}

/// A message of 1 KB and the status after it.
fn call() -> Response<Answer> {
    static MESSAGE: [u8; 1_029] = {
        let mut message = [b'x'; 1_029];
        (message[0], message[1], message[2], message[3], message[4]) = (0, 0, 0, 4, 0);
        message
    };
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let mut response = Response::new(Answer {
        data: Some(Bytes::from_static(&MESSAGE)),
        trailers: Some(trailers),
    });
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    response
}

struct Answer {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self
            .data
            .take()
            .map(Frame::data)
            .or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(next.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.data, &self.trailers) {
            (Some(data), None) => SizeHint::with_exact(data.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

async fn raw(mut stream: TcpStream) -> anyhow::Result<()> {
    match stream.read_u8().await? {
        ECHO => {
            let mut buffer = [0; 4_096];
            loop {
                match stream.read(&mut buffer).await? {
                    0 => return Ok(()),
                    n => stream.write_all(&buffer[..n]).await?,
                }
            }
        }
        SINK => {
            let mut buffer = vec![0; 256 * 1024];
            while stream.read(&mut buffer).await? > 0 {}
        }
        SOURCE => {
            let buffer = vec![0; 128 * 1024];
            loop {
                stream.write_all(&buffer).await?;
            }
        }
        _ => {}
    }
    Ok(())
}
