//! Who asks whom for what: as typed on the command line or in a list of requests, then as meant.

use crate::manifest::report::check_name;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;
use weft_proxy_api::policy::path::server_name;

/// Most requests of a list.
pub const MAX_REQUESTS: usize = 100_000;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// A pod of this service account, with a proxy.
    Account {
        /// Namespace.
        namespace: String,
        /// Name of the account.
        name: String,
    },
    /// This pod, or a pod of the workload of this name.
    Pod {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// Whoever proves this identity.
    Spiffe(String),
    /// Somebody without a proxy.
    Unmeshed,
}

/// A port by number or by the name it has in its Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// Number.
    Number(u16),
    /// Name.
    Name(String),
}

/// Whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// A Service.
    Service {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// Port of the Service.
        port: Port,
    },
    /// A pod, called by its own address.
    Pod {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// Port of the pod, or the name that a container gives it.
        port: Port,
    },
}

/// What is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/2.
    H2,
    /// gRPC.
    Grpc,
    /// Bytes.
    Tcp,
    /// Datagrams.
    Udp,
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Who asks.
    pub from: From,
    /// Whom.
    pub to: To,
    /// What is spoken.
    pub protocol: Protocol,
    /// Method of HTTP.
    pub method: String,
    /// Path, with or without query, as the caller sends it.
    pub path: String,
    /// Header fields, in order.
    pub headers: HeaderMap,
    /// The server that is named where bytes are TLS (SNI), as matches see it.
    pub sni: Option<String>,
    /// The protocol of an extended CONNECT (RFC 8441).
    pub connect: Option<String>,
}

/// A request as it is written; what is absent has a default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Written {
    /// `NAMESPACE/ACCOUNT`.
    pub from: Option<String>,
    /// `NAMESPACE/POD`.
    #[serde(alias = "from-pod", alias = "fromPod")]
    pub from_pod: Option<String>,
    /// A SPIFFE id.
    #[serde(alias = "from-spiffe", alias = "fromSpiffe")]
    pub from_spiffe: Option<String>,
    /// No proxy.
    pub unmeshed: bool,
    /// `SERVICE.NAMESPACE:PORT`.
    pub to: Option<String>,
    /// `NAMESPACE/POD:PORT`.
    #[serde(alias = "to-pod", alias = "toPod")]
    pub to_pod: Option<String>,
    /// `http`, `h2`, `grpc`, `tcp`, `udp`.
    pub protocol: Option<String>,
    /// Method.
    pub method: Option<String>,
    /// Path.
    pub path: Option<String>,
    /// A map of names to a value or a list of values, or a list of `name: value`.
    pub headers: Value,
    /// Name of the server in the ClientHello of TLS that the application speaks itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// `:protocol` of an extended CONNECT on HTTP/2, e.g. `websocket`.
    #[serde(
        alias = ":protocol",
        alias = "connect-protocol",
        alias = "connectProtocol",
        skip_serializing_if = "Option::is_none"
    )]
    pub connect_protocol: Option<String>,
}

/// The requests of a JSON list, each read by itself; an error says the list cannot be read at all.
pub fn read_list(text: &str) -> Result<Vec<Result<Question, String>>, String> {
    Ok(raw_list(text)?.into_iter().map(read_one).collect())
}

/// The requests of a JSON list as they are written.
pub fn raw_list(text: &str) -> Result<Vec<Value>, String> {
    let list: Vec<Value> = serde_json::from_str(text)
        .map_err(|error| format!("not a JSON list of requests: {error}"))?;
    if list.len() > MAX_REQUESTS {
        return Err(format!(
            "{} requests are more than {MAX_REQUESTS}",
            list.len()
        ));
    }
    Ok(list)
}

/// One request of a list.
pub fn read_one(value: Value) -> Result<Question, String> {
    let written: Written = serde_json::from_value(value).map_err(|error| error.to_string())?;
    written.meant()
}

impl Written {
    /// The request as meant, or everything that is wrong with it.
    pub fn meant(&self) -> Result<Question, String> {
        let mut mistakes = Vec::new();
        let mut note = |mistake| mistakes.push(mistake);
        let from = self.who().map_err(&mut note).ok();
        let to = self.whom().map_err(&mut note).ok();
        let protocol = self.spoken().map_err(&mut note).ok();
        let default = match protocol {
            _ if self.connect_protocol.is_some() => "CONNECT",
            Some(Protocol::Grpc) => "POST",
            _ => "GET",
        };
        let method = method(self.method.as_deref().unwrap_or(default))
            .map_err(&mut note)
            .ok();
        let headers = headers(&self.headers).map_err(&mut note).ok();
        let sni = self.server().map_err(&mut note).ok();
        let connect = self.connect(method.as_deref()).map_err(&mut note).ok();
        match (from, to, protocol, method, headers, sni, connect) {
            (
                Some(from),
                Some(to),
                Some(protocol),
                Some(method),
                Some(headers),
                Some(sni),
                Some(connect),
            ) => Ok(Question {
                from,
                to,
                protocol,
                method,
                path: self.path.clone().unwrap_or_else(|| "/".to_owned()),
                headers,
                sni,
                connect,
            }),
            _ => Err(mistakes.join("; ")),
        }
    }

    /// What is said, or follows from what else is said.
    fn spoken(&self) -> Result<Protocol, String> {
        let said = self.protocol.as_deref().map(str::parse).transpose()?;
        match (self.sni.is_some(), self.connect_protocol.is_some()) {
            (false, false) => Ok(said.unwrap_or_default()),
            (true, false) if said.is_none_or(|it| it == Protocol::Tcp) => Ok(Protocol::Tcp),
            (true, _) => {
                Err("sni: TLS that names a server is bytes to the mesh: protocol tcp".to_owned())
            }
            (false, true) if said.is_none_or(|it| it == Protocol::H2) => Ok(Protocol::H2),
            (false, true) => {
                Err("connect-protocol: there is no :protocol but in HTTP/2: protocol h2".to_owned())
            }
        }
    }

    /// The server named by TLS, in the form that proxies compare.
    fn server(&self) -> Result<Option<String>, String> {
        let Some(name) = &self.sni else {
            return Ok(None);
        };
        let known = server_name(name.as_bytes()).map(Some);
        known.ok_or_else(|| format!("sni: {name:?} is no host name: proxies look past it"))
    }

    /// The protocol of an extended CONNECT, whose form is that of a method (a token).
    fn connect(&self, spoken: Option<&str>) -> Result<Option<String>, String> {
        let Some(protocol) = &self.connect_protocol else {
            return Ok(None);
        };
        if Method::from_bytes(protocol.as_bytes()).is_err() {
            return Err(format!("connect-protocol: {protocol:?} is not a token"));
        }
        match spoken {
            None | Some("CONNECT") => Ok(Some(protocol.clone())),
            Some(_) => Err("connect-protocol: only CONNECT has a :protocol".to_owned()),
        }
    }

    fn who(&self) -> Result<From, String> {
        match (&self.from, &self.from_pod, &self.from_spiffe, self.unmeshed) {
            (Some(account), None, None, false) => {
                let (namespace, name) = namespaced("from", account)?;
                Ok(From::Account { namespace, name })
            }
            (None, Some(pod), None, false) => {
                let (namespace, name) = namespaced("from-pod", pod)?;
                Ok(From::Pod { namespace, name })
            }
            (None, None, Some(id), false) => Ok(From::Spiffe(id.clone())),
            (None, None, None, true) => Ok(From::Unmeshed),
            (None, None, None, false) => {
                Err("who asks is missing: from, from-pod, from-spiffe or unmeshed".to_owned())
            }
            _ => Err("only one of from, from-pod, from-spiffe and unmeshed is possible".to_owned()),
        }
    }

    fn whom(&self) -> Result<To, String> {
        match (&self.to, &self.to_pod) {
            (Some(service), None) => to_service(service),
            (None, Some(pod)) => to_pod(pod),
            (None, None) => Err("whom it asks is missing: to or to-pod".to_owned()),
            (Some(_), Some(_)) => Err("only one of to and to-pod is possible".to_owned()),
        }
    }
}

/// `namespace/name`; a name alone is of `default`.
fn namespaced(what: &str, text: &str) -> Result<(String, String), String> {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    for part in [namespace, name] {
        check_name(part).map_err(|why| format!("{what}: {why}; expected NAMESPACE/NAME"))?;
    }
    Ok((namespace.to_owned(), name.to_owned()))
}

/// `web`, `web.shop`, `web.shop.svc`, `web.shop.svc.cluster.local` or `shop/web`, and a port.
fn to_service(text: &str) -> Result<To, String> {
    let expected = || format!("to: {text:?} is not of the form SERVICE.NAMESPACE:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    let (namespace, name) = match host.split_once('/') {
        Some(both) => both,
        None => by_name(host).ok_or_else(expected)?,
    };
    for part in [namespace, name] {
        check_name(part).map_err(|why| format!("to: {why}"))?;
    }
    let port = to_port(port).ok_or_else(|| format!("to: {port:?} is not a port"))?;
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    Ok(To::Service {
        namespace,
        name,
        port,
    })
}

fn to_port(text: &str) -> Option<Port> {
    match text.parse::<u16>() {
        Ok(number) => (number > 0).then_some(Port::Number(number)),
        Err(_) => {
            let is_name =
                text.bytes().any(|byte| byte.is_ascii_lowercase()) && check_name(text).is_ok();
            is_name.then(|| Port::Name(text.to_owned()))
        }
    }
}

/// Namespace and name of a Service's DNS name.
fn by_name(host: &str) -> Option<(&str, &str)> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut parts = host.splitn(4, '.');
    let name = parts.next().filter(|name| !name.is_empty())?;
    let namespace = parts.next().unwrap_or("default");
    parts
        .next()
        .is_none_or(|svc| svc == "svc")
        .then_some((namespace, name))
}

fn to_pod(text: &str) -> Result<To, String> {
    let expected = || format!("to-pod: {text:?} is not of the form NAMESPACE/POD:PORT");
    let (pod, port) = text.rsplit_once(':').ok_or_else(expected)?;
    let (namespace, name) = namespaced("to-pod", pod)?;
    Ok(To::Pod {
        namespace,
        name,
        port: to_port(port).ok_or_else(expected)?,
    })
}

fn method(text: &str) -> Result<String, String> {
    Method::from_bytes(text.as_bytes())
        .map(|method| method.as_str().to_owned())
        .map_err(|_| format!("method: {text:?} is not a method of HTTP"))
}

fn headers(value: &Value) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (name, values) in map {
                match values {
                    Value::Array(values) => {
                        for value in values {
                            add(&mut headers, name, text_of(value)?)?;
                        }
                    }
                    value => add(&mut headers, name, text_of(value)?)?,
                }
            }
        }
        Value::Array(lines) => {
            for line in lines {
                add_line(&mut headers, text_of(line)?)?;
            }
        }
        _ => return Err("headers: neither a map nor a list".to_owned()),
    }
    Ok(headers)
}

fn text_of(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("headers: {value} is not a text"))
}

/// Adds `name: value`, as `curl -H` has it.
pub fn add_line(headers: &mut HeaderMap, line: &str) -> Result<(), String> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| format!("header: {line:?} is not of the form NAME: VALUE"))?;
    add(headers, name.trim(), value.trim())
}

fn add(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    let wrong = |what: &str| format!("header {name:?}: not a valid {what}");
    let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("name"))?;
    let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong("value"))?;
    let added = headers.try_append(key, value);
    added.map(drop).map_err(|_| "headers: too many".to_owned())
}

impl FromStr for Protocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "http" | "http1" | "http/1.1" => Protocol::Http,
            "h2" | "http2" => Protocol::H2,
            "grpc" => Protocol::Grpc,
            "tcp" | "tls" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => {
                return Err(format!(
                    "protocol: {text:?} is not http, h2, grpc, tcp or udp"
                ));
            }
        })
    }
}

impl Protocol {
    /// Is it HTTP?
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::Http | Protocol::H2 | Protocol::Grpc)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Http => "http",
            Protocol::H2 => "h2",
            Protocol::Grpc => "grpc",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Number(port) => write!(f, "{port}"),
            Port::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            To::Service {
                namespace,
                name,
                port,
            } => write!(f, "Service {namespace}/{name}:{port}"),
            To::Pod {
                namespace,
                name,
                port,
            } => write!(f, "Pod {namespace}/{name}:{port}"),
        }
    }
}
