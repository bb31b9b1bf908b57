//! Laws of injection over a folder of nasty manifests, with golden outputs. `WEFT_BLESS=1` writes the golden files anew.
#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

fn settings() -> Settings {
    Settings {
        version: "0.0.0-test".to_owned(),
        ..Settings::default()
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/inject")
}

/// Name and text of every manifest.
fn corpus() -> Vec<(String, String)> {
    let files = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = files
        .filter(|path| {
            path.extension()
                .is_some_and(|ext| ext == "yaml" || ext == "json")
        })
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                std::fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    found.sort();
    assert!(found.len() >= 20);
    found
}

fn report(lines: &[Line]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{line}").unwrap();
        text
    })
}

/// What must hold for any text that was not injected before.
fn laws(name: &str, text: &str, settings: &Settings) -> Output {
    let once = inject(text, settings);
    let twice = inject(&once.text, settings);
    assert_eq!(
        twice.text,
        once.text,
        "{name}: injecting twice changed something\n{text}\n{}",
        report(&twice.report)
    );
    assert!(
        !twice
            .report
            .iter()
            .any(|line| line.outcome == Outcome::Injected),
        "{name}: {}",
        report(&twice.report)
    );
    let back = uninject(&once.text);
    assert_eq!(
        back.text,
        text,
        "{name}: uninjecting did not give back the original\n{}",
        report(&back.report)
    );
    once
}

fn all_settings() -> Vec<Settings> {
    let plain = Settings {
        sidecar: Sidecar::Plain,
        trust: Trust::File("/anchors.pem".into()),
        scrape: false,
        ..settings()
    };
    let mut flags = Settings {
        trust: Trust::Text("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".into()),
        ..settings()
    };
    flags
        .set("config.weft.mesh/opaque-ports", "3306,25")
        .unwrap();
    flags
        .set("config.weft.mesh/proxy-log-level", "debug")
        .unwrap();
    vec![settings(), plain, flags]
}

#[test]
fn golden() {
    for (name, text) in corpus() {
        let output = laws(&name, &text, &settings());
        for (kind, actual) in [
            ("injected", &output.text),
            ("report", &report(&output.report)),
        ] {
            let path = folder().join("golden").join(format!("{name}.{kind}"));
            if std::env::var_os("WEFT_BLESS").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, actual).unwrap();
            }
            let expected = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                expected == *actual,
                "{} differs from what is made now:\n{actual}",
                path.display()
            );
        }
    }
}

#[test]
fn laws_hold_for_every_setting() {
    for settings in all_settings() {
        corpus()
            .iter()
            .for_each(|(name, text)| drop(laws(name, text, &settings)));
    }
}

/// Every way to disturb a text that leaves most of it in place: without this line, with a comment behind it, …
fn disturbed(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let with = |index: usize, line: &str| {
        lines
            .iter()
            .enumerate()
            .map(|(i, l)| if i == index { line } else { l })
            .collect::<String>()
    };
    let mut all = vec![
        text.replace('\n', "\r\n"),
        text.replace("\r\n", "\n"),
        text.trim_end().to_owned(),
        format!("{text}# end"),
        format!("\u{feff}{text}"),
        format!("# head\n---\n{text}"),
        text.replace('\n', "\n\n"),
        text.replace('\n', " \n"),
        text.replace(": {", ":\n {"),
        text.replace("metadata:\n", "metadata: !!map\n"),
        text.replace('\n', "\r"),
    ];
    for (i, line) in lines.iter().enumerate() {
        let bare = line.trim_end_matches(['\r', '\n']);
        let indent = &line[..line.len() - line.trim_start_matches(' ').len()];
        // Not every one at every line: that would take a minute.
        all.push(match i % 3 {
            0 => with(i, ""),
            1 => with(i, &format!("{line}{line}")),
            _ => lines[..=i].concat(),
        });
        all.push(match i % 4 {
            0 => with(i, &format!("{bare} # remark\n")),
            1 => with(i, &format!("{line}{indent}# below\n")),
            2 => with(i, &format!("{bare} &anchor\n")),
            _ => with(i, &format!(" {line}")),
        });
    }
    all
}

#[test]
fn laws_hold_for_disturbed_texts() {
    let mut injected = 0;
    for (name, text) in corpus() {
        for text in disturbed(&text) {
            let output = laws(&name, &text, &settings());
            injected += output
                .report
                .iter()
                .filter(|line| line.outcome == Outcome::Injected)
                .count();
        }
    }
    assert!(
        injected > 500,
        "only {injected} pods were injected: the disturbances break too much"
    );
}

#[test]
fn hostile_texts_are_reported() {
    let deep = "a: ".to_owned() + &"[".repeat(5000);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
                e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nkind: Pod\napiVersion: v1\nmetadata: {name: x}\n\
                spec: {containers: [{name: a}]}\n"
        .to_owned();
    for text in [
        deep,
        bomb,
        "\u{0}\u{1}".to_owned(),
        "a: b: c".to_owned(),
        "kind: Pod\napiVersion: v1\nkind: Pod\n".to_owned(),
    ] {
        let output = inject(&text, &settings());
        assert!(
            output.failed() && output.text == text,
            "{:.60}: {}",
            text,
            report(&output.report)
        );
    }
    let long = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {}}}\nspec: {{containers: [{{name: a, image: a}}]}}\n",
        "x".repeat(65536)
    );
    let output = laws("long", &long, &settings());
    assert!(output.report[0].to_string().len() < 200);
}

#[test]
fn what_was_put_in_by_hand_beside_ours_stays() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n    image: a\n";
    let injected = inject(text, &settings()).text;
    let touched = injected
        .replace(
            "  initContainers:\n",
            "  initContainers:\n  - name: mine\n    image: m\n",
        )
        .replace("  annotations:\n", "  annotations:\n    mine: \"1\"\n");
    let back = uninject(&touched);
    let expected = "apiVersion: v1\nkind: Pod\nmetadata:\n  annotations:\n    mine: \"1\"\n  name: a\nspec:\n  initContainers:\n  - name: mine\n    image: m\n  containers:\n  - name: a\n    image: a\n";
    assert_eq!(back.text, expected, "{}", report(&back.report));
}

#[test]
fn settings_cannot_write_yaml() {
    let evil = ["x\n  evil: 1", "x\" y", "a'b", "", "$(X)"];
    let attempts = evil.iter().flat_map(|e| {
        let e = (*e).to_owned();
        [
            Settings {
                version: e.clone(),
                ..settings()
            },
            Settings {
                control_addr: e.clone(),
                ..settings()
            },
            Settings {
                trust_domain: e.clone(),
                ..settings()
            },
            Settings {
                trust: Trust::File(e),
                ..settings()
            },
        ]
    });
    for attempt in attempts {
        assert!(inject("kind: Pod\n", &attempt).failed(), "{attempt:?}");
    }
    assert!(
        settings()
            .set("config.weft.mesh/skip-subnets", "10.0.0.0/8\nx: 1")
            .is_err()
    );
    assert!(settings().set("weft.mesh/injected-keys", "x").is_err());
}

#[test]
fn the_pod_says_more_than_the_flags() {
    let mut flags = settings();
    flags.set("config.weft.mesh/opaque-ports", "1111").unwrap();
    let pod = |annotations| json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "annotations": annotations }, "spec": { "containers": [{ "name": "a", "image": "a" }] } });
    let own = inject(
        &pod(json!({ "config.weft.mesh/opaque-ports": "2222" })).to_string(),
        &flags,
    )
    .text;
    assert!(own.contains("2222") && !own.contains("1111"));
    let other = inject(&pod(json!({})).to_string(), &flags).text;
    let written: Value = serde_json::from_str(&other).unwrap();
    assert_eq!(
        written["metadata"]["annotations"]["config.weft.mesh/opaque-ports"],
        "1111"
    );
}

#[test]
fn a_request_of_ours_is_never_above_a_limit() {
    for (limit, request) in [
        ("8Mi", "8Mi"),
        ("16Mi", "16Mi"),
        ("0.5Gi", "16Mi"),
        ("9M", "9M"),
    ] {
        let annotations = json!({ "config.weft.mesh/proxy-memory-limit": limit });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "annotations": annotations }, "spec": { "containers": [{ "name": "a", "image": "a" }] } });
        let written: Value =
            serde_json::from_str(&inject(&pod.to_string(), &settings()).text).unwrap();
        let containers = written["spec"]["initContainers"].as_array().unwrap();
        let proxy = containers
            .iter()
            .find(|it| it["name"] == "weft-proxy")
            .unwrap();
        assert_eq!(
            proxy["resources"],
            json!({ "requests": { "cpu": "10m", "memory": request }, "limits": { "memory": limit } })
        );
    }
}

#[test]
fn one_bad_object_of_a_list_does_not_hurt_the_others() {
    let pod = |i| {
        format!(
            "- apiVersion: v1\n  kind: Pod\n  metadata: {{name: p{i}}}\n  spec: {{containers: [{{name: a, image: a}}]}}\n"
        )
    };
    let odd = "- apiVersion: v1\n  kind: Pod\n  metadata: {name: odd}\n  spec:\n    containers:\n    - {name: a, image: a}\n    volumes:\n      &list\n      - {name: x, emptyDir: {}}\n";
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n{}{}{odd}{}",
        pod(1),
        pod(2),
        pod(3)
    );
    let output = laws("list", &text, &settings());
    let outcomes: Vec<_> = output.report.iter().map(|line| line.is_error()).collect();
    assert_eq!(
        outcomes,
        [false, false, true, false],
        "{}",
        report(&output.report)
    );
    assert!(output.text.contains(odd));
}
