//! What files say becomes events: without a file system first, then with one.
#![allow(clippy::unwrap_used)]
use super::folders::{Content, Folders};
use super::{Event, dir};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;

fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: '{ip}'}}\n---\n"
    )
}

fn broken(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: 7}}\n---\n")
}

/// An event in a word or two.
fn told(event: &Event) -> String {
    match event {
        Event::Apply(loaded) => match &loaded.object {
            crate::manifest::Object::Service(service) => {
                format!(
                    "+{} {} {}",
                    loaded.key.name,
                    service.spec.cluster_ip.clone().unwrap_or_default(),
                    loaded.origin.file
                )
            }
            _ => format!("+{}", loaded.key),
        },
        Event::Delete(key) | Event::DeleteLegacy(key) => format!("-{}", key.name),
        Event::ApplyLegacy(loaded) => format!("~{}", loaded.key),
        Event::Problems { file, problems } => format!("!{file} {}", problems.len()),
        Event::Synced => "synced".to_owned(),
        Event::Reached(number) => format!("reached {number}"),
    }
}

fn events(folders: &mut Folders) -> Vec<String> {
    folders.events().iter().map(told).collect()
}

fn text(folders: &mut Folders, folder: usize, file: &str, text: &str) -> Vec<String> {
    folders.set(folder, file, Content::Text(text));
    events(folders)
}

fn gone(folders: &mut Folders, folder: usize, file: &str) -> Vec<String> {
    folders.set(folder, file, Content::Gone);
    events(folders)
}

const NOTHING: [&str; 0] = [];
/// How long anything may take on a busy machine; nobody waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn only_what_changes_is_told() {
    let mut folders = Folders::default();
    let both = service("a", "1") + &service("b", "2");
    assert_eq!(text(&mut folders, 0, "f", &both), ["+a 1 f", "+b 2 f"]);
    assert_eq!(text(&mut folders, 0, "f", &both), NOTHING);
    assert_eq!(
        text(
            &mut folders,
            0,
            "f",
            &(service("a", "1") + &service("b", "3"))
        ),
        ["+b 3 f"]
    );
    assert_eq!(text(&mut folders, 0, "f", &service("a", "1")), ["-b"]);
    assert_eq!(gone(&mut folders, 0, "f"), ["-a"]);
    assert_eq!(gone(&mut folders, 0, "f"), NOTHING);
}

#[test]
fn d37_a_broken_file_keeps_its_last_valid_state() {
    let mut folders = Folders::default();
    text(
        &mut folders,
        0,
        "f",
        &(service("a", "1") + &service("b", "2")),
    );
    assert_eq!(text(&mut folders, 0, "f", "kind: ["), ["!f 1"]);
    // What can be read of it is applied; what cannot, might be anything.
    assert_eq!(
        text(&mut folders, 0, "f", &(service("a", "9") + "kind: [")),
        ["+a 9 f", "!f 1"]
    );
    folders.set(0, "f", Content::Unreadable("no"));
    let told = folders.events();
    let Event::Problems { problems, .. } = &told[0] else {
        panic!()
    };
    assert_eq!(
        problems[0].to_string(),
        "f: error: no (the last valid state of 2 objects stays in force)"
    );
    assert_eq!(
        text(&mut folders, 0, "f", &service("b", "2")),
        ["-a", "+b 2 f", "!f 0"]
    );
    // Deleting it removes its objects, broken or not.
    text(&mut folders, 0, "f", "kind: [");
    assert_eq!(gone(&mut folders, 0, "f"), ["-b", "!f 0"]);
}

#[test]
fn d37_a_broken_object_keeps_its_last_valid_state_and_the_rest_is_applied() {
    let mut folders = Folders::default();
    text(
        &mut folders,
        0,
        "f",
        &(service("a", "1") + &service("b", "2") + &service("c", "3")),
    );
    assert_eq!(
        text(&mut folders, 0, "f", &(broken("a") + &service("b", "9"))),
        ["+b 9 f", "-c", "!f 1"]
    );
    assert_eq!(
        text(&mut folders, 0, "f", &(service("b", "9") + &broken("a"))),
        ["+b 9 f", "!f 1"],
        "only lines moved"
    );
    // An object that never was valid is just not there.
    assert_eq!(text(&mut folders, 0, "g", &broken("z")), ["!g 1"]);
    assert_eq!(
        text(&mut folders, 0, "f", &service("a", "4")),
        ["+a 4 f", "-b", "!f 0"]
    );
}

#[test]
fn a_later_folder_overrides_and_an_earlier_one_comes_back() {
    let mut folders = Folders::default();
    assert_eq!(
        text(&mut folders, 1, "z/f", &service("a", "2")),
        ["+a 2 z/f"]
    );
    assert_eq!(text(&mut folders, 0, "f", &service("a", "1")), NOTHING);
    assert_eq!(gone(&mut folders, 1, "z/f"), ["+a 1 f"]);
    assert_eq!(
        text(&mut folders, 1, "z/f", &service("a", "3")),
        ["+a 3 z/f"]
    );
}

#[test]
fn within_a_folder_the_last_file_wins_and_the_other_is_warned() {
    let mut folders = Folders::default();
    text(&mut folders, 0, "b", &service("a", "2"));
    assert_eq!(text(&mut folders, 0, "a", &service("a", "1")), ["!a 1"]);
    assert_eq!(gone(&mut folders, 0, "b"), ["+a 1 a", "!a 0"]);
}

#[test]
fn an_object_that_moves_to_another_file_is_never_gone() {
    let mut folders = Folders::default();
    text(&mut folders, 0, "a", &service("a", "1"));
    folders.set(0, "a", Content::Gone);
    folders.set(0, "b", Content::Text(&service("a", "1")));
    assert_eq!(events(&mut folders), ["+a 1 b"]);
}

#[test]
fn kinds_that_are_of_no_concern_are_not_told() {
    let mut folders = Folders::default();
    assert_eq!(
        text(
            &mut folders,
            0,
            "f",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n"
        ),
        ["!f 1"]
    );
}

/// A watched folder and what is heard of it.
struct Watched {
    dirs: Vec<TempDir>,
    events: mpsc::Receiver<Vec<Event>>,
    heard: Vec<String>,
}

impl Watched {
    async fn new(dirs: Vec<TempDir>) -> Self {
        let (tx, events) = mpsc::channel(16);
        dir::watch(dirs.iter().map(|dir| dir.path().to_owned()).collect(), tx);
        let mut watched = Watched {
            dirs,
            events,
            heard: Vec::new(),
        };
        watched.until("synced").await;
        watched
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dirs[0].path().join(name)
    }

    /// Waits for an event that starts like this; returns what was heard until then.
    async fn until(&mut self, start: &str) -> Vec<String> {
        loop {
            if let Some(at) = self.heard.iter().position(|heard| heard.starts_with(start)) {
                return self.heard.drain(..=at).collect();
            }
            let more = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            let more = more
                .unwrap_or_else(|_| panic!("no {start}: {:?}", self.heard))
                .unwrap();
            self.heard.extend(more.iter().map(told));
        }
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[tokio::test]
async fn a_folder_is_followed() {
    let start = folder();
    put(&start.path().join("a.yaml"), &service("a", "1"));
    put(&start.path().join("a.yaml~"), &service("backup", "1"));
    put(&start.path().join(".a.yaml"), &service("hidden", "1"));
    put(&start.path().join("a.txt"), &service("note", "1"));
    fs::create_dir(start.path().join(".weft")).unwrap();
    put(&start.path().join(".weft/x.yaml"), &service("state", "1"));
    let (tx, mut rx) = mpsc::channel(16);
    dir::watch(vec![start.path().to_owned()], tx);
    let first: Vec<String> = rx.recv().await.unwrap().iter().map(told).collect();
    assert_eq!(first.len(), 2, "{first:?}");
    assert!(
        first[0].starts_with("+a 1 ") && first[1] == "synced",
        "{first:?}"
    );

    let mut watched = Watched {
        dirs: vec![start],
        events: rx,
        heard: Vec::new(),
    };
    put(&watched.path("a.yaml"), &service("a", "2"));
    watched.until("+a 2").await;
    put(&watched.path("new.tmp"), &service("b", "1"));
    fs::rename(watched.path("new.tmp"), watched.path("b.yml")).unwrap();
    watched.until("+b 1").await;
    put(&watched.path("a.yaml"), "kind: [");
    let heard = watched.until("!").await;
    assert_eq!(heard.len(), 1, "nothing is lost: {heard:?}");
    fs::create_dir_all(watched.path("deep/er")).unwrap();
    put(
        &watched.path("deep/er/c.json"),
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"c"},"spec":{"clusterIP":"3"}}"#,
    );
    watched.until("+c 3").await;
    fs::remove_dir_all(watched.path("deep")).unwrap();
    watched.until("-c").await;
    fs::remove_file(watched.path("a.yaml")).unwrap();
    watched.until("-a").await;
    put(&watched.path("junk.yaml"), "");
    fs::write(watched.path("junk.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    watched
        .until(&format!("!{} 1", watched.path("junk.yaml").display()))
        .await;
}

#[tokio::test]
async fn a_link_that_is_exchanged_is_followed() {
    let mut watched = Watched::new(vec![folder()]).await;
    // As the kubelet mounts a ConfigMap: files are links into a hidden folder that is exchanged as a whole.
    for version in ["1", "2"] {
        let hidden = format!("..{version}");
        fs::create_dir(watched.path(&hidden)).unwrap();
        put(
            &watched.path(&hidden).join("a.yaml"),
            &service("a", version),
        );
        std::os::unix::fs::symlink(&hidden, watched.path("..data_tmp")).unwrap();
        fs::rename(watched.path("..data_tmp"), watched.path("..data")).unwrap();
        if version == "1" {
            std::os::unix::fs::symlink("..data/a.yaml", watched.path("a.yaml")).unwrap();
        }
        watched.until(&format!("+a {version}")).await;
    }
    // A folder elsewhere, linked: the kernel tells of its changes, too.
    let elsewhere = folder();
    put(&elsewhere.path().join("l.yaml"), &service("l", "1"));
    std::os::unix::fs::symlink(elsewhere.path(), watched.path("link")).unwrap();
    watched.until("+l 1").await;
    put(&elsewhere.path().join("l.yaml"), &service("l", "2"));
    watched.until("+l 2").await;
    // A circle ends.
    std::os::unix::fs::symlink(watched.dirs[0].path(), elsewhere.path().join("circle")).unwrap();
    put(&watched.path("b.yaml"), &service("b", "1"));
    watched.until("+b 1").await;
}

#[tokio::test]
async fn a_missing_folder_is_reported_and_waited_for() {
    let (first, outer) = (folder(), folder());
    put(&first.path().join("a.yaml"), &service("a", "1"));
    let later = outer.path().join("later");
    let (tx, events) = mpsc::channel(16);
    dir::watch(vec![first.path().to_owned(), later.clone()], tx);
    let mut watched = Watched {
        dirs: vec![first],
        events,
        heard: Vec::new(),
    };
    let heard = watched.until("synced").await;
    assert!(
        heard.contains(&format!("!{} 1", later.display())),
        "{heard:?}"
    );
    fs::create_dir(&later).unwrap();
    watched.until(&format!("!{} 0", later.display())).await;
    put(&later.join("a.yaml"), &service("a", "2"));
    watched.until("+a 2").await;
    fs::remove_file(later.join("a.yaml")).unwrap();
    watched.until("+a 1").await;
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let dir = folder();
    let (tx, events) = mpsc::channel(16);
    let task = dir::watch(vec![dir.path().to_owned()], tx);
    drop(events);
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
}
