//! The programs started by hand, as on a virtual machine: two namespaces, a cable, a folder, three plain programs.

use crate::Case;
use anyhow::ensure;
use harness::{hand, program, sandbox};

pub(crate) const CASES: &[Case] = &[(
    "three_programs_in_two_namespaces",
    &["curl", "nc", "tcpdump", "setpriv"],
    by_hand,
)];

const SCRIPT: &str = r#"
bin=$1; app=$2; dir=$(mktemp -d); printf '%s' "$3" > $dir/vm.yaml; chmod 755 $dir
cp $bin/weft-proxy $dir    # the proxy's user may not reach the build folder
mount -t tmpfs tmpfs /run; ip link set lo up
trap 'cat $dir/*.log >&2; kill $(jobs -p) 2>/dev/null; rm -rf $dir' EXIT

# two namespaces and a cable between them
ip netns add client; ip netns add server
ip link add eth0 netns client type veth peer name eth0 netns server
for ns in client server; do ip -n $ns link set lo up; ip -n $ns link set eth0 up; done
ip -n client address add 10.1.0.1/24 dev eth0; ip -n client route add default via 10.1.0.2
ip -n server address add 10.1.0.2/24 dev eth0; ip -n server route add default via 10.1.0.1

# the controller, beside the server
ip netns exec server $bin/weft-control --dir $dir --access strict --listen 10.1.0.2:8086 > $dir/control.log 2>&1 &
until [ -s $dir/.weft/trust-anchors.pem ]; do sleep 0.1; done

# a token, the rules and the proxy for each
for ns in client server; do
  $bin/meshctl token vm/$ns --dir $dir > $dir/$ns.token; chmod 644 $dir/$ns.token; cp $dir/.weft/trust-anchors.pem $dir/roots.pem
  ip netns exec $ns $bin/weft-init --skip-inbound-ports 8086
  WEFT_PROXY_WORKLOAD=vm/$ns WEFT_PROXY_CONTROL_ADDR=10.1.0.2:8086 WEFT_PROXY_TOKEN_FILE=$dir/$ns.token \
  WEFT_PROXY_TRUST_ANCHORS_FILE=$dir/roots.pem \
    ip netns exec $ns setpriv --reuid=2102 --regid=2102 --clear-groups $dir/weft-proxy > $dir/$ns.log 2>&1 &
done

# an application on each side that knows nothing of it
ip netns exec server $app role echo 8080 & ip netns exec server $app role tcp 7000 &
c() { ip netns exec client "$@"; }
for ns in client server; do
  for i in $(seq 1800); do ip netns exec $ns curl -sf -o /dev/null http://127.0.0.1:4191/ready && break; sleep 0.1; done
  ip netns exec $ns curl -s http://127.0.0.1:4191/ready
done
# packets wait in a ring of places as large as the longest packet: by default there are eight of them
ip netns exec server tcpdump --immediate-mode -B 65536 -U -Z root -i eth0 -s 65535 -w $dir/wire tcp port 8080 or tcp port 7000 2>/dev/null &
dump=$!
until [ -s $dir/wire ]; do sleep 0.1; done
# whoever is first may come before an application listens
for to in 10.1.9.9 10.1.0.2; do
  until c curl -sf --max-time 60 -o /dev/null http://$to:8080/; do sleep 0.1; done
  until [ "$(printf up | c timeout 60 nc -N $to 7000)" = upbye ]; do sleep 0.1; done
done
for to in 10.1.9.9 10.1.0.2; do
  c curl -sS --max-time 60 -H 'x-secret: for-your-ears' http://$to:8080/one; echo
  c curl -sS --max-time 60 -H 'x-secret: for-your-ears' --http2-prior-knowledge http://$to:8080/two; echo
  printf 'for-your-ears' | c timeout 60 nc -N $to 7000
done
# the proxy's own user is not redirected: once its words are in the file, so is everything before them
until grep -qa end-of-the-capture $dir/wire; do
  c setpriv --reuid=2102 --regid=2102 --clear-groups curl -s --max-time 60 -o /dev/null http://10.1.0.2:8080/end-of-the-capture || true
  sleep 0.1
done
kill -INT $dump; wait $dump || true
grep -c for-your-ears $dir/wire && { echo 'plaintext on the wire'; exit 1; }
grep -qa weft-opaque $dir/wire
c curl -s http://127.0.0.1:4191/metrics | grep '^weft_requests_total{.*tls="true"'
# without the permission nothing passes
sed -i '/^kind: TrafficTarget/,$ s/sa-client/x/; s/sources: .*/sources: [{ kind: ServiceAccount, name: other }]/' $dir/vm.yaml
for i in $(seq 1800); do c curl -s --max-time 10 -o /dev/null -w '%{http_code}' http://10.1.9.9:8080/ | grep -q 403 && break; sleep 0.1; done
echo "then $(c curl -s --max-time 60 -o /dev/null -w '%{http_code}' http://10.1.9.9:8080/)"
for ns in client server; do ip netns exec $ns $bin/weft-init --remove; done
trap 'kill $(jobs -p) 2>/dev/null; rm -rf $dir' EXIT
"#;

fn by_hand() -> anyhow::Result<()> {
    let bin = program("meshctl")?
        .parent()
        .map(|path| path.display().to_string())
        .unwrap_or_default();
    let app = std::env::current_exe()?.display().to_string();
    let text = sandbox::script(SCRIPT, &[&bin, &app, hand::MANIFESTS])?;
    let count = |what: &str| text.matches(what).count();
    ensure!(
        count("\"version\":\"1\"") == 2 && count("\"version\":\"2\"") == 2,
        "{text}"
    );
    ensure!(
        count("for-your-earsbye") == 2,
        "TCP with half-close: {text}"
    );
    ensure!(text.contains("then 403"), "{text}");
    Ok(())
}
