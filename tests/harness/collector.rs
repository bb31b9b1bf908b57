//! A collector of traces: takes spans by OTLP over gRPC, and prints each on a line.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use weft_proxy::tell::context::hex;
use weft_proxy::tell::otlp::{CLIENT, EXPORT, ExportTraceServiceRequest, KeyValue, Span, Value};

pub(crate) async fn serve(stream: TcpStream) -> anyhow::Result<()> {
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let served = server.serve_connection(TokioIo::new(stream), service_fn(take));
    Ok(served.await?)
}

async fn take(request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    anyhow::ensure!(request.uri().path() == EXPORT, "{}", request.uri());
    let body = request.into_body().collect().await?.to_bytes();
    let message = body
        .get(5..)
        .ok_or_else(|| anyhow::anyhow!("no message of gRPC"))?;
    for of in ExportTraceServiceRequest::decode(message)?.resource_spans {
        let resource = of.resource.unwrap_or_default().attributes;
        for span in of.scope_spans.iter().flat_map(|scope| &scope.spans) {
            println!("{}", line(span, value(&resource, "service.name")));
        }
    }
    // An empty message, and that all is well.
    let answer = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", "0");
    Ok(answer.body(Full::default())?)
}

fn line(span: &Span, service: String) -> String {
    let kind = if span.kind == CLIENT {
        "client"
    } else {
        "server"
    };
    format!(
        "span service={service} kind={kind} name={} path={} status={} error={} trace={} id={} parent={}",
        span.name,
        value(&span.attributes, "url.path"),
        value(&span.attributes, "http.response.status_code"),
        value(&span.attributes, "error.type").replace(' ', "_"),
        hex(&span.trace_id),
        hex(&span.span_id),
        hex(&span.parent_span_id),
    )
}

fn value(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == key);
    let value = found.and_then(|pair| pair.value.as_ref()?.value.clone());
    match value {
        Some(Value::Text(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        None => String::new(),
    }
}
