#![allow(clippy::unwrap_used)]
use super::*;
use crate::manifest::workload::{EnvVar, FieldRef, VolumeMount};

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn expansion_is_that_of_kubernetes() {
    let env = env(&[("A", "1"), ("B", "two"), ("EMPTY", "")]);
    for (text, want) in [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("$(A)$(B)", "1two"),
        ("x$(EMPTY)y", "xy"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("ü$(B)ü", "ütwoü"),
    ] {
        assert_eq!(expand(text, &env), want, "{text}");
    }
}

fn pod() -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = "web-1".into();
    pod.metadata.namespace = "shop".into();
    pod.metadata.labels.insert("app".into(), "web".into());
    pod.spec.volumes = vec![Volume {
        name: "data".into(),
        ..Volume::default()
    }];
    pod
}

fn container(name: &str, command: &[&str]) -> Container {
    Container {
        name: name.into(),
        command: command.iter().map(|c| (*c).to_owned()).collect(),
        ..Container::default()
    }
}

fn run(container: &Container, rung: Rung) -> Result<Run, String> {
    let ips = ["10.42.1.1".parse().unwrap()];
    let base = env(&[("PATH", "/bin")]);
    resolve(
        container,
        &Facts {
            pod: &pod(),
            ips: &ips,
            rung,
            base: &base,
            configs: &Configs::new(),
            place: None,
        },
    )
}

#[test]
fn environment_in_order_with_fields_of_the_pod() {
    let mut c = container("app", &["serve", "$(WHO)"]);
    let field = |name: &str, path: &str| EnvVar {
        name: name.into(),
        value_from: Some(EnvSource {
            field_ref: Some(FieldRef {
                field_path: path.into(),
            }),
            ..EnvSource::default()
        }),
        ..EnvVar::default()
    };
    c.env = vec![
        field("POD", "metadata.name"),
        field("NS", "metadata.namespace"),
        field("IP", "status.podIP"),
        field("APP", "metadata.labels['app']"),
        EnvVar {
            name: "WHO".into(),
            value: Some("$(NS)/$(POD)@$(IP)/$(APP)".into()),
            ..EnvVar::default()
        },
    ];
    let run = run(&c, Rung::Root).unwrap();
    assert_eq!(run.argv, ["serve", "shop/web-1@10.42.1.1/web"]);
    assert!(run.env.contains(&("PATH".into(), "/.weft/bin:/bin".into())));
    c.env = vec![field("X", "status.phase")];
    assert!(
        super::resolve(
            &c,
            &Facts {
                pod: &pod(),
                ips: &[],
                rung: Rung::Root,
                base: &[],
                configs: &Configs::new(),
                place: None,
            }
        )
        .unwrap_err()
        .contains("fieldRef status.phase")
    );
}

#[test]
fn no_image_is_run_but_ours() {
    let mut c = container("app", &[]);
    c.image = "nginx".into();
    assert!(run(&c, Rung::Root).unwrap_err().contains("has no command"));
    c = container("weft-proxy", &[]);
    c.image = "weft.mesh/weft:0.1.0".into();
    assert_eq!(run(&c, Rung::Root).unwrap().argv, ["weft-proxy"]);
}

#[test]
fn one_mapped_user_means_mark_instead_of_uid() {
    let mut c = container("weft-init", &[]);
    c.image = "weft.mesh/weft:0.1.0".into();
    c.args = [
        "--proxy-uid",
        "2102",
        "--outbound-port=4140",
        "--proxy-gid=2102",
    ]
    .map(Into::into)
    .to_vec();
    assert_eq!(
        run(&c, Rung::User).unwrap().argv,
        ["weft-init", "--outbound-port=4140", "--proxy-mark", "0x539"]
    );
    assert_eq!(
        run(&c, Rung::Root).unwrap().argv[1..3],
        ["--proxy-uid", "2102"]
    );
    c = container("weft-proxy", &[]);
    c.security_context = Some(SecurityContext {
        run_as_user: Some(2102),
        run_as_group: None,
    });
    let user = run(&c, Rung::User).unwrap();
    assert!(
        user.env
            .contains(&("WEFT_PROXY_MARK".into(), "0x539".into()))
            && user.user.is_none()
    );
    let root = run(&c, Rung::Root).unwrap();
    assert!(root.user == Some(2102) && !root.env.iter().any(|(name, _)| name == "WEFT_PROXY_MARK"));
}

#[test]
fn mounts_stay_inside_their_volume() {
    let mut c = container("app", &["x"]);
    let mount = |name: &str, path: &str, sub: Option<&str>| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        sub_path: sub.map(Into::into),
        read_only: true,
    };
    c.volume_mounts = vec![mount("data", "/data", Some("a/b"))];
    let found = run(&c, Rung::Root).unwrap().mounts;
    assert_eq!(
        found[0].source,
        PathBuf::from("/.weft/pod/volumes/data/a/b")
    );
    for bad in [
        mount("none", "/data", None),
        mount("data", "data", None),
        mount("data", "/d", Some("../x")),
        mount("data", "/a/../b", None),
    ] {
        c.volume_mounts = vec![bad];
        assert!(run(&c, Rung::Root).is_err());
    }
}

#[test]
fn without_namespaces_a_container_is_told_where_things_are() {
    let mut pod = pod();
    pod.metadata.uid = Some("u1".into());
    pod.spec.containers = vec![container("weft-proxy", &[])];
    let place = Place {
        bin: "/opt/weft".into(),
        dir: "/state/pods/u1".into(),
        number: 257,
        services: std::sync::Arc::default(),
        lowest: 0,
    };
    let base = env(&[("PATH", "/bin")]);
    let run = |container: &Container| {
        let facts = Facts {
            pod: &pod,
            ips: &[],
            rung: Rung::Loopback,
            base: &base,
            configs: &Configs::new(),
            place: Some(&place),
        };
        resolve(container, &facts).unwrap()
    };
    let mut app = container("app", &["serve", "$(WEFT_BIND)", "--in=/data/x"]);
    app.volume_mounts = vec![VolumeMount {
        name: "data".into(),
        mount_path: "/data".into(),
        sub_path: None,
        read_only: false,
    }];
    let app = run(&app);
    let real = "--in=/state/pods/u1/volumes/data/x";
    assert_eq!(app.argv, ["serve", "127.41.1.1", real]);
    assert!(app.mounts.is_empty());
    for var in [
        ("PATH", "/opt/weft:/bin"),
        ("WEFT_HOSTS_FILE", "/state/pods/u1/hosts"),
        ("WEFT_VOLUMES", "/state/pods/u1/volumes"),
        ("WEFT_POD_UID", "u1"),
    ] {
        assert!(app.env.contains(&(var.0.into(), var.1.into())), "{var:?}");
    }
    let proxy = run(&container("weft-proxy", &[]));
    for var in [
        ("WEFT_PROXY_ADMIN_ADDR", "127.42.1.1:4191"),
        ("WEFT_PROXY_CONTROL_ADDR", "127.42.0.1:8086"),
    ] {
        assert!(proxy.env.contains(&(var.0.into(), var.1.into())), "{var:?}");
    }
}
