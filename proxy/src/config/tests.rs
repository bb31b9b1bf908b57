#![allow(clippy::unwrap_used)]
use super::*;

fn read(pairs: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let given: Vec<(String, String)> = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Config::read(|name| {
        given
            .iter()
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.clone())
    })
}

const MINIMUM: [(&str, &str); 3] = [
    (env::WORKLOAD, "default/web-1"),
    (env::CONTROL_ADDR, "control:8086"),
    (env::TOKEN_FILE, "/token"),
];

fn with(name: &'static str, value: &'static str) -> Result<Config, Mistakes> {
    read(&[&MINIMUM[..], &[(name, value)]].concat())
}

#[test]
fn the_minimum_is_enough() {
    let config = read(&MINIMUM).unwrap();
    assert_eq!(
        config.workload,
        Workload {
            namespace: "default".into(),
            pod: "web-1".into()
        }
    );
    assert_eq!(
        config.outbound,
        [
            "127.0.0.1:4140".parse().unwrap(),
            "[::1]:4140".parse().unwrap()
        ]
    );
    assert_eq!(config.inbound, ["[::]:4143".parse().unwrap()]);
    assert_eq!(config.shutdown_grace, Duration::from_secs(30));
    assert_eq!(
        (config.mark, config.trust_domain.as_str()),
        (None, "cluster.local")
    );
    assert!(config.workers >= 1);
}

#[test]
fn values_are_parsed() {
    assert_eq!(with(env::MARK, "0x539").unwrap().mark, Some(0x539));
    assert_eq!(with(env::MARK, "1337").unwrap().mark, Some(1337));
    assert_eq!(with(env::WORKERS, "3").unwrap().workers, 3);
    assert_eq!(
        with(env::SHUTDOWN_GRACE, "500ms").unwrap().shutdown_grace,
        Duration::from_millis(500)
    );
    assert_eq!(
        with(env::LOG_FORMAT, "json").unwrap().log_format,
        LogFormat::Json
    );
    let opaque = with(env::OPAQUE_PORTS, "25, 6000-6010").unwrap();
    assert_eq!(
        [25, 26, 6000, 6010, 6011].map(|port| opaque.is_opaque(port)),
        [true, false, true, true, false]
    );
}

#[test]
fn fixed_targets_name_listener_target_and_dial_address() {
    let value = "outbound 127.0.0.1:1=10.0.0.1:80,inbound [::1]:2=10.0.0.2:80=127.0.0.1:8080, inbound 0.0.0.0:3=1.1.1.1:3";
    let fixed = with(env::FIXED_TARGETS, value).unwrap().fixed_targets;
    let shown: Vec<String> = fixed
        .iter()
        .map(|f| {
            format!(
                "{} {} {} {}",
                f.direction.label(),
                f.listen,
                f.target,
                f.dial
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "outbound 127.0.0.1:1 10.0.0.1:80 10.0.0.1:80",
            "inbound [::1]:2 10.0.0.2:80 127.0.0.1:8080",
            "inbound 0.0.0.0:3 1.1.1.1:3 1.1.1.1:3"
        ]
    );
}

#[test]
fn every_mistake_is_reported_at_once_and_no_value_is_shown() {
    let error = read(&[
        (env::WORKLOAD, "s3cret"),
        (env::MARK, "s3cret"),
        (env::SHUTDOWN_GRACE, "s3cret"),
        (env::WORKERS, "s3cret"),
        (env::OPAQUE_PORTS, "10-5"),
        (
            env::FIXED_TARGETS,
            "outbound 127.0.0.1:1=10.0.0.1:80=10.0.0.1:81",
        ),
        (env::TRUST_ANCHORS, "s3cret"),
        (env::INBOUND_ADDR, "s3cret"),
        (env::LOG_FORMAT, "s3cret"),
    ])
    .unwrap_err()
    .to_string();
    let names = [
        env::WORKLOAD,
        env::CONTROL_ADDR,
        env::TOKEN_FILE,
        env::MARK,
        env::SHUTDOWN_GRACE,
        env::WORKERS,
        env::OPAQUE_PORTS,
        env::FIXED_TARGETS,
        env::TRUST_ANCHORS,
        env::INBOUND_ADDR,
        env::LOG_FORMAT,
    ];
    for name in names {
        assert!(error.contains(name), "{name} is missing in {error}");
    }
    assert!(!error.contains("s3cret"), "{error}");
    assert_eq!(error.lines().count(), 1 + names.len());
}

#[test]
fn every_setting_says_what_it_means() {
    assert!(SETTINGS.len() > 20);
    for setting in SETTINGS {
        assert!(
            setting.name.starts_with("WEFT_PROXY_") && setting.meaning.ends_with('.'),
            "{setting:?}"
        );
    }
}
