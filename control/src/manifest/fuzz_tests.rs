//! Mutated manifests never panic, and what they say stays within bounds. Deterministic: the same inputs in every run.
#![allow(clippy::unwrap_used)]
use super::{MAX_FILE, parse};
use fastrand::Rng;

const SAMPLES: &[&str] = &[
    "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop, labels: {a: &x b, c: *x}}\nspec:\n  clusterIP: 10.0.0.1\n  selector: {app: web}\n  ports:\n  - {name: http, port: 80, targetPort: 8080}\n",
    "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: 2\n  template:\n    spec:\n      containers:\n      - name: c\n        command: [\"sh\", '-c', |\n          echo]\n",
    "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: web}\nspec:\n  service: web.default.svc.cluster.local\n  backends:\n  - service: web-v1\n    weight: 90\n  - service: web-v2\n    weight: 10\n  matches: [{kind: HTTPRouteGroup, name: g}]\n",
    "apiVersion: access.smi-spec.io/v1alpha3\nkind: TrafficTarget\nmetadata: {name: t}\nspec:\n  destination: {kind: ServiceAccount, name: web, port: 80}\n  sources: [{kind: ServiceAccount, name: front}]\n  rules:\n  - {kind: HTTPRouteGroup, name: g, matches: [all]}\n  - {kind: TCPRoute, name: r}\n",
    "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {name: g}\nspec:\n  matches:\n  - name: all\n    pathRegex: \"/a(b|c)[0-9]+\"\n    methods: [GET, '*']\n    headers:\n    - x-a: \".*b\"\n",
    "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"p\"},\"status\":{\"podIP\":\"10.1.2.3\"}}]}",
    "apiVersion: specs.smi-spec.io/v1alpha4\r\nkind: TCPRoute\r\nmetadata: {name: r}\r\nspec: {matches: {ports: [80, 0x50, 0120]}}\r\n---\r\n--- !!map {}\r\n...\r\n",
];

const PIECES: &[&str] = &[
    "---\n",
    "\n",
    "\r",
    "\t",
    "&a ",
    "*a",
    "<<: ",
    "- ",
    "? ",
    ": ",
    "!!binary ",
    "!x ",
    "|\n",
    ">-\n",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "#",
    "\0",
    "\u{feff}",
    "\u{2028}",
    "☃",
    "null",
    "~",
    "-1",
    "1e999",
    ".nan",
    "0x7fffffffffffffffffff",
    "9223372036854775808",
    "((a{1,100}){1,100}){1,100}",
    "(?x)#",
    "\\",
    "/a)|(?:.*",
    "List",
    "v1alpha1",
    "kind: ",
    "%YAML 9.9\n",
    "99999999999999999999999999999999999999999999",
    "-0",
    "2026-99-99T99:99:99Z",
];

fn mutate(rng: &mut Rng, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(0..=bytes.len());
        match rng.u8(0..6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => {
                let end = (at + rng.usize(0..40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = rng.usize(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => {
                let piece = PIECES[rng.usize(..PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn mutated_manifests_never_panic() {
    let mut rng = Rng::with_seed(0x5eed);
    for round in 0..6000 {
        let (first, second) = (
            SAMPLES[rng.usize(..SAMPLES.len())],
            SAMPLES[rng.usize(..SAMPLES.len())],
        );
        let text = mutate(&mut rng, &[first, second][..1 + round % 2].join("---\n"));
        let (loaded, problems) = parse("fuzz", &text);
        assert!(loaded.iter().all(|loaded| loaded.key.name.len() <= 253));
        assert!(
            problems
                .iter()
                .all(|problem| problem.to_string().len() < 2000),
            "{text}"
        );
        let lines = u32::try_from(text.matches(['\n', '\r']).count()).unwrap() + 1;
        assert!(
            problems.iter().all(|problem| problem.origin.line <= lines),
            "{problems:?}\n{text}"
        );
    }
}

#[test]
fn junk_never_panics() {
    let mut rng = Rng::with_seed(0xbad);
    for _ in 0..2000 {
        let junk: Vec<u8> = (0..rng.usize(0..300)).map(|_| rng.u8(..)).collect();
        let _ = parse("fuzz", &String::from_utf8_lossy(&junk));
        let pieces: String = (0..rng.usize(0..60))
            .map(|_| PIECES[rng.usize(..PIECES.len())])
            .collect();
        let _ = parse("fuzz", &pieces);
    }
    let _ = parse("fuzz", &"\0".repeat(MAX_FILE));
}
