//! The programs started by hand, as on virtual machines: two namespaces, a cable, a folder of manifests, and how a proxy is
//! started between them.

use crate::{program, sandbox};

/// The folder: two pods by their addresses, a Service, and who may call whom.
pub const MANIFESTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: vm }
spec: { serviceAccountName: client, containers: [] }
status: { podIP: 10.1.0.1 }
---
apiVersion: v1
kind: Pod
metadata: { name: server, namespace: vm, labels: { app: server } }
spec: { serviceAccountName: server, containers: [] }
status: { podIP: 10.1.0.2 }
---
apiVersion: v1
kind: Service
metadata: { name: server, namespace: vm }
spec:
  clusterIP: 10.1.9.9
  selector: { app: server }
  ports: [{ name: any, port: 8080 }, { name: bytes, port: 7000 }]
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: { name: ports, namespace: vm }
spec: { matches: { ports: [7000, 8080] } }
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: { name: client-to-server, namespace: vm }
spec:
  destination: { kind: ServiceAccount, name: server }
  rules: [{ kind: TCPRoute, name: ports }]
  sources: [{ kind: ServiceAccount, name: client }]
"#;

/// What the scripts share: two namespaces, the controller, and how a proxy is started.
const WORLD: &str = r#"
bin=$1; app=$2; dir=$(mktemp -d); printf '%s' "$3" > $dir/vm.yaml; chmod 755 $dir
cp $bin/weft-proxy $dir    # the proxy's user may not reach the build folder
mount -t tmpfs tmpfs /run; ip link set lo up
declare -A old last
trap 'tail -n 40 $dir/*.log >&2; kill $(jobs -p) 2>/dev/null; rm -rf $dir' EXIT
ip netns add client; ip netns add server
ip link add eth0 netns client type veth peer name eth0 netns server
for ns in client server; do ip -n $ns link set lo up; ip -n $ns link set eth0 up; done
ip -n client address add 10.1.0.1/24 dev eth0; ip -n client route add default via 10.1.0.2
ip -n server address add 10.1.0.2/24 dev eth0; ip -n server route add default via 10.1.0.1
ip netns exec server $bin/weft-control --dir $dir --access strict --listen 10.1.0.2:8086 > $dir/control.log 2>&1 &
until [ -s $dir/.weft/trust-anchors.pem ]; do sleep 0.1; done
cp $dir/.weft/trust-anchors.pem $dir/roots.pem
for ns in client server; do
  $bin/meshctl token vm/$ns --dir $dir > $dir/$ns.token; chmod 644 $dir/$ns.token
  ip netns exec $ns $bin/weft-init --skip-inbound-ports 8086,4317
  mkdir -m 700 $dir/$ns.door; chown 2102:2102 $dir/$ns.door
done
proxy() { # workload, (workers,) arguments
  ns=$1; shift; if [ $# -gt 0 ]; then shift; fi
  WEFT_PROXY_WORKLOAD=vm/$ns WEFT_PROXY_CONTROL_ADDR=${WEFT_PROXY_CONTROL_ADDR:-10.1.0.2:8086} WEFT_PROXY_TOKEN_FILE=$dir/$ns.token \
  WEFT_PROXY_TRUST_ANCHORS_FILE=$dir/roots.pem \
    ip netns exec $ns setpriv --reuid=2102 --regid=2102 --clear-groups $dir/weft-proxy "$@" >> $dir/$ns.log 2>&1 &
  pid=$!
}
ready() { for i in $(seq 1800); do ip netns exec $1 curl -sf -o /dev/null http://127.0.0.1:4191/ready && return; sleep 0.1; done; return 1; }
metric() { ip netns exec $1 curl -s http://127.0.0.1:4191/metrics | grep -F "$2" || true; }
c() { ip netns exec client "$@"; }
"#;

/// Runs a script in that world; its output.
pub fn run(script: &str) -> anyhow::Result<String> {
    let bin = program("meshctl")?
        .parent()
        .map(|path| path.display().to_string())
        .unwrap_or_default();
    let app = std::env::current_exe()?.display().to_string();
    let ends = "trap 'kill $(jobs -p) 2>/dev/null; rm -rf $dir' EXIT\n";
    let script = format!("{WORLD}{script}{ends}");
    sandbox::script(&script, &[&bin, &app, MANIFESTS])
}
