//! What is told about single requests: spans of a trace through both proxies, and lines of the access log.

use crate::Case;
use anyhow::{Context, ensure};

pub(crate) const CASES: &[Case] = &[(
    "a_trace_goes_through_both_proxies_and_the_log_says_what_happened",
    &["curl", "setpriv"],
    told,
)];

const SCRIPT: &str = r#"
export WEFT_PROXY_TRACE_COLLECTOR=10.1.0.2:4317
WEFT_PROXY_TRACE_SERVICE=shop-client WEFT_PROXY_ACCESS_LOG=common WEFT_PROXY_ACCESS_LOG_FILTER=4xx proxy client
WEFT_PROXY_TRACE_SERVICE=shop-server WEFT_PROXY_ACCESS_LOG=json proxy server
ip netns exec server $app role echo 8080 & ip netns exec server $app role collector 4317 > $dir/spans &
for ns in client server; do ready $ns; done
until c curl -sf -o /dev/null http://10.1.9.9:8080/; do sleep 0.1; done
until ip netns exec server bash -c 'exec 3<>/dev/tcp/127.0.0.1/4317' 2>/dev/null; do sleep 0.1; done
trace=0af7651916cd43dd8448eb211c80319c; span=b7ad6b7169203331
c curl -s -H "traceparent: 00-$trace-$span-01" -H 'tracestate: a=1' 'http://10.1.9.9:8080/traced?card=4111'; echo
c curl -s -H "traceparent: 00-$trace-$span-00" http://10.1.9.9:8080/quiet; echo
c curl -s -H "b3: $trace-$span-1" --http2-prior-knowledge http://10.1.9.9:8080/b3; echo
c curl -s -o /dev/null -H "traceparent: 00-$trace-$span-01" 'http://10.1.9.9:8080/lost?status=404'
until [ "$(grep -c span $dir/spans)" -ge 6 ]; do sleep 0.1; done
cat $dir/spans
for ns in client server; do
  until grep -q /lost $dir/$ns.log; do sleep 0.1; done    # the last of them: lines are written in their order
  sed "s/^/log of $ns: /" $dir/$ns.log | grep -e '"path"' -e ' HTTP/' || true
  metric $ns 'weft_spans_total{result="sent"'
done
"#;

fn told() -> anyhow::Result<()> {
    let text = harness::hand::run(SCRIPT)?;
    let ours = "b7ad6b7169203331";
    let span = |service: &str, path: &str| -> anyhow::Result<String> {
        let (service, path) = (format!("service={service} "), format!(" path={path} "));
        let mut spans = text
            .lines()
            .filter(|line| line.starts_with("span ") && line.contains(&service));
        let found = spans.find(|line| line.contains(&path));
        found
            .map(str::to_owned)
            .with_context(|| format!("no span of {service}{path}: {text}"))
    };
    let part = |line: &str, name: &str| -> String {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name));
        value.unwrap_or_default().to_owned()
    };
    // Ours is the parent of the client's, the client's of the server's, and the server's is what the application sees.
    for path in ["/traced", "/b3", "/lost"] {
        let (client, server) = (span("shop-client", path)?, span("shop-server", path)?);
        ensure!(
            client.contains("kind=client") && server.contains("kind=server"),
            "{text}"
        );
        ensure!(part(&client, "parent=") == ours, "{text}");
        let id = part(&client, "id=");
        ensure!(id.len() == 16 && part(&server, "parent=") == id, "{text}");
        let last = part(&server, "id=");
        let mut answers = text.lines().filter(|line| line.starts_with("{\"pod\""));
        let seen = answers.find(|line| line.contains(path));
        let seen = seen.unwrap_or_default();
        ensure!(path == "/lost" || seen.contains(&last), "{path}: {text}");
    }
    ensure!(
        span("shop-client", "/lost")?.contains("error=404"),
        "{text}"
    );
    ensure!(span("shop-server", "/lost")?.contains("error= "), "{text}");
    let quiet = format!("00-0af7651916cd43dd8448eb211c80319c-{ours}-00");
    ensure!(text.contains(&quiet), "not traced, not touched: {text}");
    ensure!(!text.contains("path=/quiet"), "{text}");
    let log = |of: &str, path: &str| {
        let start = format!("log of {of}: ");
        let mut lines = text.lines().filter(|line| line.starts_with(&start));
        lines.find(|line| line.contains(path)).map(str::to_owned)
    };
    // The server logs everything, the client what was answered with 4xx; queries nobody.
    let served = log("server", "/quiet").with_context(|| format!("no line: {text}"))?;
    ensure!(
        served.contains("\"status\":200") && served.contains("/sa/client\""),
        "{served}"
    );
    ensure!(log("client", "/quiet").is_none(), "{text}");
    let lost = log("client", "/lost").with_context(|| format!("no line: {text}"))?;
    ensure!(lost.contains("/lost?- HTTP/1.1\" 404 "), "{lost}");
    let traced = log("server", "/traced").unwrap_or_default();
    ensure!(
        traced.contains("\"query\":\"-\"") && !traced.contains("4111"),
        "{traced}"
    );
    Ok(())
}
