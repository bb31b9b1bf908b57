//! The definitions of the SMI kinds and the conversion between their versions, by a real API server.

use anyhow::{Context, Result, bail, ensure};
use harness::eventually;
use harness::kube::Kube;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs::default_provider;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use weft_control::crd;
use weft_control::smi::convert::review;

/// Every version of every kind is applied and read back in every other version: all objects at once, for each call of
/// `kubectl` is a process of its own.
pub(super) fn versions() -> Result<()> {
    let kube = Kube::up()?;
    define(&kube)?;
    let written = write(&kube)?;
    ensure!(written.len() > 80, "{} objects", written.len());
    let first = as_written(&kube, &written)?;
    for (group, kind, versions) in kinds(&written)? {
        for version in versions {
            let (resource, seen) = (resource(&kind, version, &group), format!("seen={version}"));
            kube.kubectl(&["annotate", "--overwrite", "-A", "--all", &resource, &seen])
                .with_context(|| format!("every {kind} written back as {version}"))?;
        }
    }
    let last = as_written(&kube, &written)?;
    for (object, first) in &first {
        let last = last.get(object).context("it is there")?;
        let first = settled(first.clone());
        ensure!(*last == first, "{object:?}:\n{first}\n{last}");
    }
    refusals(&kube)
}

/// An object: version, kind, namespace, name.
type Written = (String, String, String, String);

/// Each section of the examples in a namespace of its own.
fn write(kube: &Kube) -> Result<Vec<Written>> {
    let (mut all, mut text, mut namespaces) = (Vec::new(), Vec::new(), Vec::new());
    for (at, (section, title)) in examples()?.into_iter().enumerate() {
        let namespace = format!("section-{at}");
        for (api_version, kind, name) in objects(&section).context(title)? {
            all.push((api_version, kind, namespace.clone(), name));
        }
        let own = format!("namespace: {namespace}");
        text.push(section.replace("namespace: default", &own));
        namespaces.push(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        );
    }
    kube.apply(&json!({"apiVersion": "v1", "kind": "List", "items": namespaces}).to_string())?;
    kube.apply(&text.join("\n---\n"))?;
    Ok(all)
}

/// Every kind that was written, with its group and versions.
fn kinds(written: &[Written]) -> Result<Vec<(String, String, &'static [&'static str])>> {
    let group = |api_version: &str| Some(api_version.split_once('/')?.0.to_owned());
    let kinds: Option<BTreeSet<_>> = written
        .iter()
        .map(|(api_version, kind, ..)| Some((group(api_version)?, kind.clone())))
        .collect();
    let with_versions = |(group, kind): (String, String)| {
        let versions: &[&str] = match kind.as_str() {
            "UDPRoute" | "IdentityBinding" => &["v1alpha4"],
            _ => &["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"],
        };
        (group, kind, versions)
    };
    Ok(kinds
        .context("no group")?
        .into_iter()
        .map(with_versions)
        .collect())
}

fn resource(kind: &str, version: &str, group: &str) -> String {
    format!("{}s.{version}.{group}", kind.to_lowercase())
}

/// The fields of every object in the version that it was written in, without what the server adds.
fn as_written(kube: &Kube, written: &[Written]) -> Result<BTreeMap<Written, Value>> {
    let mut lists = BTreeMap::new();
    for (api_version, kind, ..) in written {
        let key = (api_version.clone(), kind.clone());
        if lists.contains_key(&key) {
            continue;
        }
        let (group, version) = api_version.split_once('/').context("no group")?;
        let mut list = kube.get(&[&resource(kind, version, group), "-A"])?;
        let items = list["items"].as_array_mut().context("no list")?;
        lists.insert(key, std::mem::take(items));
    }
    let mut found = BTreeMap::new();
    for object in written {
        let (api_version, kind, namespace, name) = object;
        let list = lists.get(&(api_version.clone(), kind.clone()));
        let is_it = |it: &&Value| {
            let metadata = &it["metadata"];
            metadata["namespace"] == **namespace && metadata["name"] == **name
        };
        let mut fields = list
            .and_then(|list| list.iter().find(is_it))
            .with_context(|| format!("{object:?} is not there"))?
            .clone();
        ensure!(fields["apiVersion"] == **api_version, "{fields}");
        fields
            .as_object_mut()
            .context("no object")?
            .remove("metadata");
        found.insert(object.clone(), fields);
    }
    Ok(found)
}

/// The webhook of a controller, as far as conversion goes; its address and its certificate.
fn serve() -> Result<(u16, String)> {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    let pem = key.cert.pem();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der());
    let private = private.map_err(|error| anyhow::anyhow!("{error}"))?;
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    // It ends with the program; a case has no way to wait for it.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(accept(listener, TlsAcceptor::from(Arc::new(tls))))
    });
    Ok((port, pem))
}

async fn accept(listener: std::net::TcpListener, tls: TlsAcceptor) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let tls = tls.clone();
        tokio::spawn(async move {
            let stream = TokioIo::new(tls.accept(stream).await?);
            let server = hyper::server::conn::http1::Builder::new();
            server.serve_connection(stream, service_fn(answer)).await?;
            anyhow::Ok(())
        });
    }
}

async fn answer(
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<bytes::Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let answer = http::Response::builder().header("content-type", "application/json");
    Ok(answer.body(Full::new(review(&body)?.into()))?)
}

/// Defines all kinds, with the conversion of this process.
fn define(kube: &Kube) -> Result<()> {
    let (port, pem) = serve()?;
    let conversion = crd::Conversion {
        namespace: "weft-system".to_owned(),
        ca_bundle: base64(pem.as_bytes()),
    };
    let mut items = crd::all(Some(&conversion));
    for item in &mut items {
        if item["spec"]["conversion"]["strategy"] == "Webhook" {
            let url = format!("https://127.0.0.1:{port}/convert");
            item["spec"]["conversion"]["webhook"]["clientConfig"] =
                json!({"url": url, "caBundle": conversion.ca_bundle});
        }
    }
    kube.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    eventually("the definitions are in force", || {
        let wait = [
            "wait",
            "crd",
            "--all",
            "--for=condition=Established",
            "--timeout=10s",
        ];
        kube.kubectl(&wait)?;
        let all = kube.kubectl(&["get", "smi"])?;
        ensure!(all.is_empty(), "{all}");
        Ok(())
    })
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let bits = part
            .iter()
            .chain(&[0, 0])
            .take(3)
            .fold(0usize, |bits, byte| (bits << 8) | usize::from(*byte));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) & 63] as char;
            text.push(if place <= part.len() { letter } else { '=' });
        }
    }
    text
}

/// The sections of every file of the spec's examples, but the one that is no valid object.
fn examples() -> Result<Vec<(String, String)>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../control/testdata/smi-spec");
    let mut sections = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        for section in text.split("# == ").filter(|section| !section.is_empty()) {
            let (title, objects) = section.split_once('\n').context("no title")?;
            if !title.contains("refused") && !path.ends_with("birds.yaml") {
                sections.push((objects.to_owned(), format!("{}: {title}", path.display())));
            }
        }
    }
    Ok(sections)
}

fn objects(text: &str) -> Result<Vec<(String, String, String)>> {
    let value = |object: &str, name: &str| {
        let line = object
            .lines()
            .find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.with_context(|| format!("{object} has no {name}"))
    };
    let object = |object: &str| {
        let metadata = value(object, "metadata: {name: ")?;
        let name = metadata.split(',').next().unwrap_or_default().to_owned();
        Ok((
            value(object, "apiVersion: ")?,
            value(object, "kind: ")?,
            name,
        ))
    };
    text.split("---\n").map(object).collect()
}

/// A group in the layout of an older version than it claims gets its own layout when it is converted.
fn settled(mut object: Value) -> Value {
    let is_nested = |version: &str| version.ends_with("v1alpha3") || version.ends_with("v1alpha4");
    if object["apiVersion"].as_str().is_some_and(is_nested)
        && let Some(fields) = object.as_object_mut()
        && let Some(matches) = fields.remove("matches")
    {
        fields.insert("spec".to_owned(), json!({ "matches": matches }));
    }
    object
}

/// What is wrong is refused by the server, with the field.
fn refusals(kube: &Kube) -> Result<()> {
    let of = |group: &str, version: &str, kind: &str, rest: &str| {
        format!(
            "apiVersion: {group}.smi-spec.io/{version}\nkind: {kind}\nmetadata: {{name: wrong}}\n{rest}\n"
        )
    };
    let split = |version: &str, weight: &str| {
        let spec = format!("spec: {{service: a, backends: [{{service: b, weight: {weight}}}]}}");
        of("split", version, "TrafficSplit", &spec)
    };
    let target = |version: &str, destination: &str| {
        let rest = "sources: [{kind: ServiceAccount, name: a}], rules: [{kind: TCPRoute, name: a}]";
        of(
            "access",
            version,
            "TrafficTarget",
            &format!("spec: {{{destination}{rest}}}"),
        )
    };
    let both = "spec: {schemes: {serviceAccount: a, podLabelSelector: {matchLabels: {a: b}}}}";
    for (text, expected) in [
        (split("v1alpha4", "-1"), "spec.backends[0].weight"),
        (split("v1alpha4", "0.5"), "spec.backends[0].weight"),
        (split("v1alpha2", "500m"), "spec.backends[0].weight"),
        (split("v1alpha1", "-5m"), "spec.backends[0].weight"),
        (split("v1alpha1", "99E"), "spec.backends[0].weight"),
        (split("v1alpha5", "1"), "v1alpha5"),
        // Not dropped: without its condition it would apply to every request.
        (
            split("v1alpha2", "1").replace("backends:", "matches: [], backends:"),
            "is known since v1alpha3",
        ),
        (target("v1alpha4", ""), "spec.destination"),
        (target("v1alpha3", ""), "spec.destination"),
        (
            target(
                "v1alpha3",
                "destination: {kind: IdentityBinding, name: a}, ",
            ),
            "spec.destination.kind",
        ),
        (
            of("access", "v1alpha4", "IdentityBinding", both),
            "podLabelSelector",
        ),
        (
            of(
                "specs",
                "v1alpha4",
                "TCPRoute",
                "spec: {matches: {ports: [0]}}",
            ),
            "spec.matches.ports[0]",
        ),
        (
            of(
                "specs",
                "v1alpha3",
                "TCPRoute",
                "spec: {matches: {ports: [80]}}",
            ),
            "spec.matches",
        ),
        (
            of(
                "specs",
                "v1alpha1",
                "HTTPRouteGroup",
                "matches: [{name: a, methods: [get]}]",
            ),
            "matches[0].methods[0]",
        ),
    ] {
        match kube.apply(&text) {
            Ok(_) => bail!("accepted:\n{text}"),
            Err(error) => ensure!(
                format!("{error:#}").contains(expected),
                "{expected}: {error:#}"
            ),
        }
    }
    Ok(())
}
