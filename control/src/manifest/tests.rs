#![allow(clippy::unwrap_used)]
use super::workload::Pod;
use super::*;

/// The only object of a text without problems.
fn one(text: &str) -> Object {
    let (mut loaded, problems) = parse("t.yaml", text);
    assert_eq!(problems, [], "{text}");
    assert_eq!(loaded.len(), 1, "{text}");
    loaded.remove(0).object
}

/// The problems of a text, as lines.
fn problems(text: &str) -> Vec<String> {
    parse("t.yaml", text)
        .1
        .iter()
        .map(Problem::to_string)
        .collect()
}

fn keys(text: &str) -> Vec<String> {
    parse("t.yaml", text)
        .0
        .iter()
        .map(|loaded| format!("{}@{}", loaded.key, loaded.origin.line))
        .collect()
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - port: 80\n    targetPort: http\n";

#[test]
fn documents_keep_their_lines() {
    let text = format!(
        "# Source: chart\n---\n# empty\n---\n\n{SERVICE}--- # next\n{SERVICE}\n...\n%YAML 1.1\n---\nkind: Namespace\napiVersion: v1\nmetadata: {{name: shop}}\n"
    );
    assert_eq!(keys(&text), ["Service default/web@14", "Namespace shop@25"]);
    assert_eq!(
        problems(&text),
        ["t.yaml:14: warning: Service default/web: is in this file twice: line 6 is overridden"]
    );
}

#[test]
fn carriage_returns_and_byte_order_mark() {
    let windows = format!("\u{feff}---\r\n{}---\r\n", SERVICE.replace('\n', "\r\n"));
    assert_eq!(one(&windows), one(SERVICE));
    assert_eq!(keys(&windows), ["Service default/web@2"]);
}

#[test]
fn a_separator_inside_a_block_text_needs_no_care_but_an_indented_one_stays() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: |\n    a\n    ---\n    b\n";
    let Object::ConfigMap(map) = one(map) else {
        panic!()
    };
    assert_eq!(map.data["x"], "a\n---\nb\n");
}

#[test]
fn lists_of_both_kinds() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a, namespace: ns}\n- apiVersion: v1\n  kind: List\n  items:\n  - {apiVersion: v1, kind: ServiceAccount, metadata: {name: b}}\n";
    assert_eq!(keys(list), ["Pod ns/a@4", "ServiceAccount default/b@10"]);
    let typed = "apiVersion: v1\nkind: PodList\nmetadata: {resourceVersion: ''}\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n";
    assert_eq!(keys(typed), ["Pod default/a@5", "Pod default/b@6"]);
    assert_eq!(
        keys("apiVersion: v1\nkind: List\nitems: []\n"),
        Vec::<String>::new()
    );
    assert_eq!(
        problems("apiVersion: v1\nkind: List\nitems: 3\n"),
        ["t.yaml:3: error: items must be a list, not the number 3"]
    );
}

#[test]
fn one_bad_item_costs_only_itself() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: 7}}\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n";
    let parsed = parse_file("t.yaml", text);
    assert_eq!(parsed.loaded.len(), 1);
    assert_eq!(
        parsed.broken,
        BTreeSet::from([ObjectKey::new(Kind::Pod, "default", "a")])
    );
    assert!(!parsed.unreadable);
    assert_eq!(
        parsed.problems[0].to_string(),
        "t.yaml:4: error: Pod default/a: spec.containers: invalid type: integer `7`, expected a sequence"
    );
}

#[test]
fn json_and_its_spellings() {
    let json = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"\ud83d\ude00\/"}}"#;
    let Object::ConfigMap(map) = one(json) else {
        panic!()
    };
    assert_eq!(map.data["x"], "😀/");
    let indented = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Pod\",\n\t\"metadata\": {\"name\": \"a\"}\n}\n{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"b\"}}";
    assert_eq!(parse("t.json", indented).0.len(), 2);
}

#[test]
fn values_are_read_as_kubernetes_reads_them() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: null}\nspec:\n  hostNetwork: yes\n  volumes:\n  - name: v\n    projected: {defaultMode: 0644, sources: [{serviceAccountToken: {path: token}}]}\n  containers:\n  - {name: c, env: [{name: A, value: \"1\"}], ports: }\n";
    let Object::Pod(pod) = one(pod) else { panic!() };
    assert!(pod.spec.host_network);
    assert_eq!(
        pod.spec.volumes[0].projected.as_ref().unwrap().default_mode,
        Some(420)
    );
    assert_eq!(pod.spec.containers[0].env[0].value.as_deref(), Some("1"));
    assert_eq!(pod.metadata.namespace, "default");
    // Kubernetes refuses a number where a text is wanted, and so do we.
    let wrong = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: c\n    env:\n    - name: A\n      value: 1\n";
    assert_eq!(
        problems(wrong),
        [
            "t.yaml:9: error: Pod default/a: spec.containers[0].env[0].value: invalid type: integer `1`, expected a string"
        ]
    );
}

#[test]
fn anchors_and_merges_are_followed() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: &l {app: x}}\nspec: {containers: [{name: c, command: &c [sh, -c]}, {name: d, command: *c}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s, labels: {<<: {a: b}, c: d}}\n";
    let (loaded, found) = parse("t", text);
    assert_eq!(found, []);
    let Object::Pod(pod) = &loaded[0].object else {
        panic!()
    };
    assert_eq!(pod.spec.containers[1].command, ["sh", "-c"]);
    let Object::Service(service) = &loaded[1].object else {
        panic!()
    };
    assert_eq!(service.metadata.labels.len(), 2);
}

#[test]
fn what_is_no_manifest_is_said_with_line_and_object() {
    for (text, expected) in [
        ("a: 1\n", "t.yaml:1: error: apiVersion: is missing"),
        (
            "\n- 1\n",
            "t.yaml:2: error: a manifest must be a map with apiVersion and kind, not a list",
        ),
        (
            "apiVersion: v1\nkind: Pod\n",
            "t.yaml:1: error: Pod without a name: metadata.name: is missing",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: A_b\n",
            "t.yaml:4: error: Pod default/A_b: metadata.name: \"A_b\" is not a name: lower-case letters, digits, '-' and '.' only",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: a.b\n",
            "t.yaml:4: error: Service default/a.b: metadata.name: \"a.b\" is not a DNS label of at most 63 characters",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: ../x}\n",
            "t.yaml:3: error: Pod ../x/a: metadata.namespace: \"../x\" is not a name: lower-case letters, digits, '-' and '.' only",
        ),
        (
            "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: a}\n",
            "t.yaml:1: warning: Deployment a: apiVersion: this version is not read and the object is ignored; write apps/v1",
        ),
        (
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: 'system:x'}\n",
            "t.yaml:1: info: ClusterRole system:x: this kind is of no concern to the mesh: ignored",
        ),
    ] {
        assert_eq!(problems(text)[0], expected);
    }
}

#[test]
fn a_document_that_cannot_be_read_takes_no_other_with_it() {
    let text = format!(
        "{SERVICE}---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: bad\nspec: [unclosed\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: good}}\n"
    );
    let parsed = parse_file("t.yaml", &text);
    assert_eq!(
        keys(&text),
        ["Service default/web@1", "Pod default/good@15"]
    );
    assert!(parsed.unreadable);
    let problem = &parsed.problems[0];
    assert_eq!(problem.object.as_deref(), Some("Pod default/bad"));
    assert!((13..=14).contains(&problem.origin.line), "{problem}");
}

#[test]
fn a_huge_name_is_refused_without_being_repeated() {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {}}}\n",
        "a".repeat(64 << 10)
    );
    let found = problems(&text);
    assert!(
        found[0].contains("is too long for a name: at most 253 characters"),
        "{}",
        found[0]
    );
    assert!(found[0].len() < 400, "{}", found[0].len());
    let most = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {}}}\n",
        "a".repeat(253)
    );
    assert_eq!(keys(&most).len(), 1);
}

#[test]
fn billion_laughs_are_refused_fast() {
    let mut text = "a: &a [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n".to_owned();
    for (last, next) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        text += &format!("{next}: &{next} [{}]\n", format!("*{last},").repeat(9));
    }
    refused(&text);
    // The same with few, long texts: what is copied counts, not how often.
    let long = "x".repeat(1 << 20);
    let mut text = format!("a: &a {long}\n");
    for (last, next) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        text += &format!("{next}: &{next} [{}]\n", format!("*{last},").repeat(4));
    }
    refused(&text);
}

#[test]
fn depth_documents_and_size_are_bounded() {
    refused(&"[".repeat(100_000));
    refused(&"{a: ".repeat(100_000));
    refused(
        &(0..3000)
            .map(|depth| format!("{}a:\n", " ".repeat(depth)))
            .collect::<String>(),
    );
    refused(&"- ".repeat(10_000));
    refused(&format!("{{\"a\":{}", "[".repeat(100_000)));
    refused(&"---\na\n".repeat(MAX_DOCUMENTS + 1));
    refused(&" ".repeat(MAX_FILE + 1));
    assert_eq!(problems(&"---\n".repeat(1 << 20)), Vec::<String>::new());
    assert_eq!(parse("t", &"---\na\n".repeat(MAX_DOCUMENTS)).1.len(), 201);
}

use super::yaml::MAX_DOCUMENTS;

fn refused(text: &str) {
    let start = std::time::Instant::now();
    let (loaded, problems) = parse("t", text);
    assert!(loaded.is_empty());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].severity == Severity::Error && problems[0].message.len() < 400);
    // What is not bounded takes hours.
    assert!(
        start.elapsed() < std::time::Duration::from_secs(60),
        "took {:?}",
        start.elapsed()
    );
}

#[test]
fn what_is_deep_but_within_bounds_is_read() {
    let deep = |depth: usize| {
        format!(
            "apiVersion: example.com/v1\nkind: Deep\nmetadata: {{name: a}}\nspec: {}{}\n",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    assert_eq!(keys(&deep(60)), ["Deep a@1"]);
    assert_eq!(keys(&deep(70)), Vec::<String>::new());
}

#[test]
fn a_large_file_is_read() {
    let text: String = (0..2000)
        .map(|n| SERVICE.replace("web", &format!("web-{n}")) + "---\n")
        .collect();
    assert_eq!(parse("t", &text).0.len(), 2000);
    let list: String = (0..2000).map(|n| format!("- {{apiVersion: v1, kind: Pod, metadata: {{name: p{n}}}, spec: {{containers: [{{name: c, command: [a, b]}}]}}}}\n")).collect();
    assert_eq!(
        parse("t", &format!("apiVersion: v1\nkind: List\nitems:\n{list}"))
            .0
            .len(),
        2000
    );
}

#[test]
fn what_the_local_runtime_writes_can_be_read_again() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: ns, labels: {x: \"on\"}, creationTimestamp: 2026-01-02T03:04:05Z}\nspec:\n  containers:\n  - name: c\n    readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 2}\nstatus: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], conditions: [{type: Ready, status: \"True\"}]}\n";
    let Object::Pod(pod) = one(text) else {
        panic!()
    };
    assert_eq!(pod.status.ips().len(), 2);
    assert!(pod.status.is_ready());
    let mut json = serde_json::to_value(&*pod).unwrap();
    json["apiVersion"] = "v1".into();
    json["kind"] = "Pod".into();
    assert_eq!(one(&json.to_string()), Object::Pod(pod));
}

#[test]
fn readiness() {
    let ready = |status: &str| {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nstatus: {status}\n");
        let Object::Pod(pod) = one(&text) else {
            panic!()
        };
        Pod::clone(&pod).status.is_ready()
    };
    assert!(ready("{podIP: 10.0.0.1}"));
    assert!(!ready("{conditions: [{type: Ready, status: \"False\"}]}"));
    assert!(!ready("{phase: Failed}"));
}

#[test]
fn a_problem_is_one_line_whatever_was_written() {
    let text = "kind: \"x\\nforged.yaml:1: error\\e[31m\"\napiVersion: v1\nmetadata: {name: \"a\\rb\\nc\"}\n";
    let (_, problems) = parse("a.yaml", text);
    let (loaded, more) = parse("a.yaml", &text.replace("kind: \"x", "kind: Service #"));
    let all = problems.into_iter().chain(more);
    let lines: Vec<String> = all.map(|problem| problem.to_string()).collect();
    assert!(!lines.is_empty() || !loaded.is_empty());
    assert!(
        lines.iter().all(|line| !line.contains(char::is_control)),
        "{lines:?}"
    );
    let problem = Problem {
        origin: Origin {
            file: "a\nb.yaml".into(),
            line: 1,
        },
        object: Some("Pod default/\u{1b}[2J".into()),
        field: None,
        message: "first\nsecond\r".into(),
        severity: Severity::Error,
    };
    assert_eq!(
        problem.to_string(),
        "a b.yaml:1: error: Pod default/\\u{1b}[2J: first second\\r"
    );
}
