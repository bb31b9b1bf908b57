//! Everything suspicious in manifests, or in a world: what is wrong within objects, and between them.

use crate::manifest::{Origin, Problem, Severity};
use crate::simulate::complete::{ASSUMED, complete};
use crate::simulate::files::Files;
use crate::views::Mesh;
use crate::views::findings::codes::Row;
use crate::views::findings::{self, Code, Finding};
use crate::views::world::World;
use serde_json::{Value, json};
use std::fmt::Write;

/// What files say, and what is suspicious between their objects. What is assumed is never suspicious.
pub fn files(files: &Files, mesh: Mesh) -> Vec<Finding> {
    let mut all: Vec<Finding> = files.problems().cloned().map(within).collect();
    all.extend(world(&complete(files, mesh).world));
    sort(&mut all);
    all
}

/// What is suspicious between the objects of a world, e.g. that of a running controller.
pub fn world(world: &World) -> Vec<Finding> {
    let mut all = findings::thorough(world);
    all.retain(|finding| &*finding.problem.origin.file != ASSUMED);
    sort(&mut all);
    all
}

/// The same, and what is wrong within what was written: for programs. `outdated`: why this is perhaps of a state before.
pub fn running(world: &World, problems: Vec<Problem>, outdated: Option<String>) -> Value {
    let mut all: Vec<Finding> = problems.into_iter().map(within).collect();
    all.extend(self::world(world));
    all.extend(outdated.map(not_read));
    sort(&mut all);
    json(&all)
}

/// A problem of a manifest by itself.
fn within(problem: Problem) -> Finding {
    let code = match problem.severity {
        Severity::Error => Code::Invalid,
        Severity::Warning => Code::Odd,
        Severity::Info => Code::Ignored,
    };
    Finding { code, problem }
}

fn not_read(message: String) -> Finding {
    let code = Code::NotRead;
    let problem = Problem {
        origin: Origin {
            file: "".into(),
            line: 0,
        },
        object: None,
        field: None,
        message,
        severity: code.row().severity,
    };
    Finding { code, problem }
}

fn sort(all: &mut [Finding]) {
    let key = |finding: &Finding| {
        let Problem {
            origin,
            object,
            field,
            ..
        } = &finding.problem;
        (origin.clone(), object.clone(), field.clone(), finding.code)
    };
    all.sort_by_key(key);
}

/// For people: one finding a paragraph, and how many there are.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { code, problem } in findings {
        let row = code.row();
        let _ = writeln!(text, "{} {problem}", row.number);
        let _ = writeln!(text, "     fix: {}", row.remedy);
    }
    let count = |severity| {
        findings
            .iter()
            .filter(|it| it.problem.severity == severity)
            .count()
    };
    let _ = writeln!(
        text,
        "{} errors, {} warnings, {} notes",
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Info)
    );
    text
}

/// For programs: a list.
pub fn json(findings: &[Finding]) -> Value {
    let one = |Finding { code, problem }: &Finding| {
        let row = code.row();
        json!({
            "code": row.number,
            "name": row.name,
            "severity": problem.severity.to_string(),
            "object": problem.object,
            "field": problem.field,
            "file": &*problem.origin.file,
            "line": problem.origin.line,
            "message": problem.message,
            "fix": row.remedy,
        })
    };
    findings.iter().map(one).collect()
}

/// What [`json`] said, e.g. of a controller. A code that this build does not know becomes [`Code::Suspicious`].
pub fn read(said: &Value) -> Option<Vec<Finding>> {
    let one = |it: &Value| {
        let text = |field: &str| it[field].as_str().map(str::to_owned);
        let code = Row::find(&text("code")?).map_or(Code::Suspicious, |row| row.code);
        let severity = [Severity::Info, Severity::Warning, Severity::Error];
        let word = text("severity")?;
        let problem = Problem {
            origin: Origin {
                file: text("file")?.into(),
                line: it["line"].as_u64()?.try_into().ok()?,
            },
            object: text("object"),
            field: text("field"),
            message: text("message")?,
            severity: severity.into_iter().find(|it| it.to_string() == word)?,
        };
        Some(Finding { code, problem })
    };
    said.as_array()?.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::files::File;

    fn found(text: &str) -> Vec<(String, u32)> {
        let files = Files::new(vec![File {
            id: "a".into(),
            shown: "a.yaml".into(),
            text: text.into(),
        }]);
        let found = self::files(&files, Mesh::default());
        let place = |it: &Finding| (it.code.row().number.to_owned(), it.problem.origin.line);
        found.iter().map(place).collect()
    }

    const SOUND: &str = "apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2}
spec: {selector: {app: web, v: '2'}, ports: [{port: 80}]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: s}
spec: {service: web, backends: [{service: v2, weight: 1}]}
";

    #[test]
    fn what_is_told_to_programs_can_be_read_again() {
        let wrong = SOUND.replace("v2, weight: 1", "v3, weight: -1");
        let files = Files::new(vec![File {
            id: "a".into(),
            shown: "a.yaml".into(),
            text: wrong,
        }]);
        let found = self::files(&files, Mesh::default());
        assert!(!found.is_empty());
        assert_eq!(read(&json(&found)), Some(found));
        assert_eq!(read(&json!([{"code": "W001"}])), None);
    }

    #[test]
    fn sound_files_are_silent_and_assumptions_are_no_findings() {
        assert_eq!(found(SOUND), []);
    }

    #[test]
    fn findings_within_and_between_objects_have_code_and_line() {
        let gone = SOUND.replace("backends: [{service: v2", "backends: [{service: v3");
        assert_eq!(found(&gone), [("W111".to_owned(), 11)]);
        let wrong = SOUND.replace("weight: 1", "weight: -1");
        assert_eq!(found(&wrong), [("W001".to_owned(), 14)]);
        let other = format!("{SOUND}---\napiVersion: x/v1\nkind: Thing\nmetadata: {{name: a}}\n");
        assert_eq!(found(&other), [("W003".to_owned(), 16)]);
    }

    const TARGET: &str = "---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: t}
spec:
  destination: {kind: ServiceAccount, name: default}
  sources: [{kind: ServiceAccount, name: a}]
  rules: [{kind: HTTPRouteGroup, name: g}, {kind: TCPRoute, name: p}]
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: g}
spec: {matches: [{name: m, pathRegex: /a}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: p}
spec: {matches: {ports: [80]}}
";

    /// The codes of `SOUND` and `TARGET` after a replacement.
    fn codes(from: &str, to: &str) -> Vec<String> {
        let all = format!("{SOUND}{TARGET}");
        assert!(all.contains(from), "{from}");
        let found = found(&all.replace(from, to)).into_iter();
        found.map(|(code, _)| code).collect()
    }

    #[test]
    fn what_is_in_force_and_hardly_meant_is_a_finding() {
        assert_eq!(codes("/a", "/a"), [""; 0]);
        for (from, to, expected) in [
            ("name: g}, {", "name: h}, {", "W101"),
            ("name: g}, {", "name: g, matches: [other]}, {", "W102"),
            (
                "{kind: ServiceAccount, name: default}",
                "{kind: ServiceAccount, name: other}",
                "W106",
            ),
            ("ports: [80]}}", "ports: [81]}}", "W107"),
            (
                "ports: [{port: 80}]",
                "ports: [{port: 80, name: tcp}]",
                "W108",
            ),
            ("weight: 1}", "weight: 0}", "W112"),
            ("{service: v2,", "{service: web,", "W002"),
            (
                "'2'}, ports: [{port: 80}]",
                "'2'}, ports: [{port: 81}]",
                "W115",
            ),
            (
                "{app: web}, ports",
                "{app: web}, clusterIP: None, ports",
                "W119",
            ),
            ("'2'}, ports", "'2'}, type: ExternalName, ports", "W120"),
            (
                "pathRegex: /a}",
                "pathRegex: /a}, {name: other, pathRegex: /ab}",
                "W130",
            ),
            ("[{name: m, pathRegex: /a}]", "[]", "W131"),
        ] {
            let found = codes(from, to);
            assert!(
                found.iter().any(|it| it == expected),
                "{to}: {found:?}, not {expected}"
            );
        }
    }

    /// Manifests besides `SOUND` and `TARGET` that are suspicious in one way.
    const SUSPICIOUS: &[(&str, &str)] = &[
        (
            "W103",
            "apiVersion: access.smi-spec.io/v1alpha4
kind: TrafficTarget
metadata: {name: x}
spec: {destination: {kind: ServiceAccount, name: default}, sources: [{kind: IdentityBinding, name: none}], rules: [{kind: TCPRoute, name: p}]}
",
        ),
        (
            "W104",
            "apiVersion: access.smi-spec.io/v1alpha4
kind: IdentityBinding
metadata: {name: x}
spec: {schemes: {spiffeIdentities: ['spiffe://cluster.local/ns/other/sa/a']}}
",
        ),
        (
            "W105",
            "apiVersion: access.smi-spec.io/v1alpha2
kind: TrafficTarget
metadata: {name: x}
spec: {destination: {kind: ServiceAccount, name: default}, rules: [{kind: TCPRoute, name: p}]}
",
        ),
        (
            "W109",
            "apiVersion: v1
kind: Pod
metadata: {name: bare, annotations: {weft.mesh/inject: disabled}}
spec: {containers: [{name: a}]}
",
        ),
        (
            "W110",
            "apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: x}
spec: {service: none, backends: [{service: v2, weight: 1}]}
",
        ),
        (
            "W113",
            "apiVersion: apps/v1
kind: Deployment
metadata: {name: x}
spec: {replicas: 0, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web, v: '2'}}, spec: {containers: [{name: a}]}}}
",
        ),
        (
            "W118",
            "apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: x}
spec: {service: v2, backends: [{service: web, weight: 1}], matches: [{kind: HTTPRouteGroup, name: none}]}
",
        ),
        (
            "W121",
            "apiVersion: v1
kind: Service
metadata: {name: bytes}
spec: {selector: {app: web}, ports: [{port: 80, name: tcp}]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: x}
spec: {service: bytes, backends: [{service: web, weight: 1}], matches: [{kind: HTTPRouteGroup, name: g}]}
",
        ),
        (
            "W140",
            "apiVersion: v1
kind: Pod
metadata: {name: probed, annotations: {config.weft.mesh/access: strict}}
spec: {containers: [{name: a, livenessProbe: {httpGet: {port: 80, scheme: HTTPS}}}]}
",
        ),
        (
            "W141",
            "apiVersion: v1
kind: Pod
metadata: {name: lax, annotations: {config.weft.mesh/access: lax}}
spec: {containers: [{name: a}]}
",
        ),
        (
            "W143",
            "apiVersion: v1
kind: Pod
metadata: {name: dialled}
spec: {containers: [{name: a, readinessProbe: {tcpSocket: {port: 80}}}]}
",
        ),
        (
            "W150",
            "apiVersion: specs.smi-spec.io/v1alpha4
kind: UDPRoute
metadata: {name: x}
spec: {matches: {ports: [53]}}
",
        ),
        (
            "W160",
            "apiVersion: weft.mesh/v1alpha1
kind: ServicePolicy
metadata: {name: x}
spec: {service: web, timeouts: {request: 1s}}
---
apiVersion: weft.mesh/v1alpha1
kind: ServicePolicy
metadata: {name: second}
spec: {service: web, timeouts: {request: 2s}}
",
        ),
        (
            "W161",
            "apiVersion: weft.mesh/v1alpha1
kind: ServicePolicy
metadata: {name: x}
spec: {service: none, timeouts: {request: 1s}}
",
        ),
    ];

    #[test]
    fn each_finding_has_a_manifest_that_shows_it_with_its_line() {
        for (code, more) in SUSPICIOUS {
            let sound = format!("{SOUND}{TARGET}---\n{more}");
            let found = found(&sound);
            let mine: Vec<_> = found.iter().filter(|(it, _)| it == code).collect();
            assert!(!mine.is_empty(), "{code}: {found:?}");
            assert!(mine.iter().all(|(_, line)| *line > 0), "{code}: {mine:?}");
        }
    }

    #[test]
    fn of_several_splits_the_one_that_never_applies_is_named() {
        let split = SOUND.split("---").last().unwrap_or_default();
        let second = split.replace("name: s}", "name: t}");
        assert_eq!(
            found(&format!("{SOUND}---{second}")),
            [("W116".to_owned(), 16)]
        );
        let when = |name: &str, group: &str| {
            let conditions =
                format!("weight: 1}}], matches: [{{kind: HTTPRouteGroup, name: {group}}}]");
            let split = split.replace("name: s}", &format!("name: {name}}}"));
            let route = format!(
                "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {{name: {group}}}\n"
            );
            format!(
                "---{}---\n{route}",
                split.replace("weight: 1}]", &conditions)
            )
        };
        let wide = when("a", "wide") + "spec: {matches: [{name: m, pathRegex: /a}]}\n";
        let narrow =
            when("b", "narrow") + "spec: {matches: [{name: m, pathRegex: /a/b, methods: [GET]}]}\n";
        let codes = |text: String| found(&text).into_iter().map(|it| it.0).collect::<Vec<_>>();
        assert_eq!(codes(format!("{SOUND}{wide}{narrow}")), ["W117"]);
        let apart = narrow.replace("/a/b", "/c");
        assert_eq!(codes(format!("{SOUND}{wide}{apart}")), [""; 0]);
    }
}
