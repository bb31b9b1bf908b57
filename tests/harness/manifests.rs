//! Manifests the cases share, as a user would write them.

use std::fmt::Write;

/// Deployment, ServiceAccount and Service `name` whose pods run this test program in a role and are meshed.
pub fn workload(name: &str, replicas: u32, role: &[&str], port: u16, port_name: &str) -> String {
    raw(name, replicas, role, port, port_name, "enabled")
}

/// The same, without a proxy.
pub fn unmeshed(name: &str, role: &[&str], port: u16) -> String {
    raw(name, 1, role, port, "any", "disabled")
}

/// An HTTP echo server on 8080.
pub fn echo(name: &str, replicas: u32) -> String {
    workload(name, replicas, &["echo", "8080"], 8080, "http")
}

/// Servers on 8080 without a proxy that do as they are told (see the role `moody`): many of them cost little.
pub fn moody(name: &str, replicas: u32) -> String {
    raw(name, replicas, &["moody", "8080"], 8080, "http", "disabled")
}

/// A server of bytes on 7000 whose port declares nothing, so that the proxy has to find out.
pub fn tcp_server(name: &str, role: &str) -> String {
    workload(name, 1, &[role, "7000"], 7000, "any")
}

fn raw(
    name: &str,
    replicas: u32,
    role: &[&str],
    port: u16,
    port_name: &str,
    inject: &str,
) -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let mut command = format!("{:?}, \"role\"", program.display().to_string());
    for word in role {
        let _ = write!(command, ", {word:?}");
    }
    format!(
        r#"apiVersion: v1
kind: ServiceAccount
metadata: {{ name: {name} }}
---
apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec:
  selector: {{ app: {name} }}
  ports:
    - {{ name: {port_name}, port: {port} }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{ app: {name} }}
  template:
    metadata:
      labels: {{ app: {name} }}
      annotations:
        weft.mesh/inject: {inject}
    spec:
      serviceAccountName: {name}
      containers:
        - name: app
          image: example
          command: [{command}]
          readinessProbe:
            tcpSocket: {{ port: {port} }}
            periodSeconds: 1
"#
    )
}

/// A TrafficSplit of the root `service`.
pub fn split(service: &str, backends: &[(&str, u32)]) -> String {
    let mut text = format!(
        "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {{ name: {service} }}\nspec:\n  service: {service}\n  backends:\n"
    );
    for (backend, weight) in backends {
        let _ = writeln!(text, "    - {{ service: {backend}, weight: {weight} }}");
    }
    text
}

/// A TrafficTarget that allows `source` the given methods and path of `destination`.
pub fn allow_http(source: &str, destination: &str, method: &str, path: &str) -> String {
    format!(
        r#"apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {{ name: {destination}-routes }}
spec:
  matches:
    - name: only
      pathRegex: {path:?}
      methods: ["{method}"]
---
{}"#,
        target(
            source,
            destination,
            &format!("{{ kind: HTTPRouteGroup, name: {destination}-routes }}")
        )
    )
}

/// A TrafficTarget that allows `source` any HTTP request to `destination`.
pub fn allow_all(source: &str, destination: &str) -> String {
    allow_http(source, destination, "*", "/")
}

/// A TrafficTarget that allows `source` any bytes on one port of `destination`.
pub fn allow_tcp(source: &str, destination: &str, port: u16) -> String {
    format!(
        r#"apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {{ name: {destination}-ports }}
spec:
  matches:
    ports: [{port}]
---
{}"#,
        target(
            source,
            destination,
            &format!("{{ kind: TCPRoute, name: {destination}-ports }}")
        )
    )
}

fn target(source: &str, destination: &str, rule: &str) -> String {
    format!(
        r#"apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {{ name: {source}-to-{destination} }}
spec:
  destination: {{ kind: ServiceAccount, name: {destination} }}
  rules:
    - {rule}
  sources:
    - {{ kind: ServiceAccount, name: {source} }}
"#
    )
}
