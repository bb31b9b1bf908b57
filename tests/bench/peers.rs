//! Every peer: its own two pods, the application, and a proxy to each side. All stand ready together, and one is loaded at a
//! time, so that repetitions can be interleaved.

use crate::cases::{Case, Load};
use crate::options::Options;
use crate::process::{Process, output};
use crate::world::{PORTS, Pods, SERVER, SERVICE, Side, privileged};
use crate::{certs, configs, weft};
use anyhow::{Context, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use weft_proxy_api::names::{PROXY_UID, ports};

const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) pods: Pods,
    /// What clients call: the service, or the server itself where nothing is between.
    pub(crate) host: &'static str,
    pub(crate) client: Option<Proxy>,
    pub(crate) server: Option<Proxy>,
    pub(crate) others: Vec<Process>,
    pub(crate) program: Option<PathBuf>,
    pub(crate) folder: PathBuf,
}

/// A proxy and how to start it again.
pub(crate) struct Proxy {
    words: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    process: Option<Process>,
}

impl Proxy {
    pub(crate) fn new(
        words: Vec<String>,
        environment: Vec<(String, String)>,
        log: PathBuf,
    ) -> Self {
        Self {
            words,
            environment,
            log,
            process: None,
        }
    }

    /// Runs it in its pod, as the user whose packets the rules leave alone.
    pub(crate) fn start(mut self, pods: &Pods, side: Side) -> anyhow::Result<Self> {
        self.process = None;
        let mut command = if privileged() {
            let mut command = pods.exec(side, "setpriv");
            command
                .args([
                    &format!("--reuid={PROXY_UID}"),
                    &format!("--regid={PROXY_UID}"),
                    "--clear-groups",
                ])
                .args(&self.words);
            command
        } else {
            let mut command = pods.exec(side, &self.words[0]);
            command.args(&self.words[1..]);
            command
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(&mut command, &self.log)?);
        Ok(self)
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.process.as_ref().map(Process::ids).unwrap_or_default()
    }
}

impl Peer {
    pub(crate) fn up(name: &str, options: &Options, root: &Path) -> anyhow::Result<Self> {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder)?;
        let pods = Pods::up(name)?;
        let this = std::env::current_exe()?.display().to_string();
        let mut application = pods.exec(Side::Server, &this);
        let application = Process::start(
            application.args(["role", "server"]),
            &folder.join("server.log"),
        )?;
        let host = if name == "direct" { SERVER } else { SERVICE };
        let others = vec![application];
        let mut peer = Self {
            name: name.to_owned(),
            pods,
            host,
            client: None,
            server: None,
            others,
            program: None,
            folder,
        };
        match name {
            "direct" => {}
            "weft" => weft::up(&mut peer, &programs(options)?, options.workers, 0)?,
            "weft_1k" => weft::up(&mut peer, &programs(options)?, options.workers, 1_000)?,
            "before" => weft::up(&mut peer, &programs_before(options)?, options.workers, 0)?,
            "floor" => peer.floor(&this, root, options, "mutual")?,
            "plain" => peer.floor(&this, root, options, "plain")?,
            "haproxy" | "nginx" => peer.foreign(root, options.workers)?,
            other => bail!("there is no peer {other}"),
        }
        peer.first_answer(Duration::from_secs(20))?;
        Ok(peer)
    }

    fn floor(
        &mut self,
        this: &str,
        root: &Path,
        options: &Options,
        tls: &str,
    ) -> anyhow::Result<()> {
        match programs(options) {
            Ok(programs) => weft::redirect(&self.pods, &programs)?,
            Err(_) => {
                self.steer(Side::Client, [ports::OUTBOUND; 3])?;
                self.steer(Side::Server, [ports::INBOUND; 3])?;
            }
        }
        let start = |side: &str| {
            let words = [
                this,
                "role",
                "floor",
                side,
                &root.display().to_string(),
                &options.workers.to_string(),
                tls,
            ];
            Proxy::new(
                words.map(str::to_owned).to_vec(),
                Vec::new(),
                self.folder.join(format!("{side}.log")),
            )
        };
        let (server, client) = (start("server"), start("client"));
        self.server = Some(server.start(&self.pods, Side::Server)?);
        self.client = Some(client.start(&self.pods, Side::Client)?);
        Ok(())
    }

    fn foreign(&mut self, root: &Path, workers: usize) -> anyhow::Result<()> {
        ensure!(
            privileged(),
            "its packets can be told apart by user id only, which needs root"
        );
        let program = output(Command::new("sh").args([
            "-c",
            &format!("PATH=$PATH:/usr/sbin command -v {}", self.name),
        ]));
        let program = program.ok().context("not installed")?.trim().to_owned();
        for side in [Side::Server, Side::Client] {
            let at = root.display().to_string();
            let stream = Path::new(NGINX_STREAM).exists().then_some(NGINX_STREAM);
            let text = match self.name.as_str() {
                "nginx" => configs::nginx(side, &at, workers, stream),
                _ => configs::haproxy(side, &at, workers),
            };
            let short = if side == Side::Client {
                "client"
            } else {
                "server"
            };
            let file = self.folder.join(format!("{short}.conf"));
            std::fs::write(&file, text)?;
            let file = file.display().to_string();
            let words = match self.name.as_str() {
                "nginx" => vec![program.clone(), "-c".to_owned(), file],
                _ => vec![program.clone(), "-db".to_owned(), "-f".to_owned(), file],
            };
            self.steer(side, configs::ports(side))?;
            let proxy = Proxy::new(words, Vec::new(), self.folder.join(format!("{short}.log")))
                .start(&self.pods, side)?;
            *(if side == Side::Client {
                &mut self.client
            } else {
                &mut self.server
            }) = Some(proxy);
        }
        self.program = Some(program.into());
        Ok(())
    }

    fn steer(&self, side: Side, to: [u16; 3]) -> anyhow::Result<()> {
        let file = self.folder.join("rules.nft");
        std::fs::write(&file, configs::redirection(side, to))?;
        output(self.pods.exec(side, "nft").arg("-f").arg(&file)).map(drop)
    }

    /// Why this peer has nothing to say in a case.
    pub(crate) fn not_for(&self, case: &Case) -> Option<&'static str> {
        let bytes = matches!(
            case.load,
            Load::Up(_)
                | Load::Down(_)
                | Load::Echo(_)
                | Load::Connect(_)
                | Load::Idle { http: false }
        );
        match case.load {
            _ if self.name == "nginx" && bytes && !Path::new(NGINX_STREAM).exists() => {
                Some("no stream module")
            }
            Load::Idle { .. } | Load::Memory | Load::Start if self.client.is_none() => {
                Some("no proxy")
            }
            Load::Size if self.program.is_none() => Some("no program of its own"),
            _ => None,
        }
    }

    /// Seconds (since 1970) of the first answered request.
    pub(crate) fn first_answer(&mut self, patience: Duration) -> anyhow::Result<f64> {
        let mut probe = self.probe(patience)?;
        let text = std::io::read_to_string(probe.stdout.take().context("no output")?)?;
        let status = probe.wait()?;
        match text.trim().parse() {
            Ok(at) if status.success() => Ok(at),
            _ => bail!("no answer through it: {}; {}", text.trim(), self.words()),
        }
    }

    /// Starts asking until there is an answer.
    fn probe(&self, patience: Duration) -> anyhow::Result<std::process::Child> {
        let this = std::env::current_exe()?.display().to_string();
        let millis = patience.as_millis().to_string();
        let mut probe = self.pods.exec(Side::Client, &this);
        probe
            .args([
                "role",
                "probe",
                &format!("{}:{}", self.host, PORTS[0]),
                &millis,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Ok(probe.spawn()?)
    }

    /// Ends the client-side proxy and starts it again; milliseconds from its exec to the first answer.
    pub(crate) fn restart(&mut self) -> anyhow::Result<f64> {
        let mut proxy = self.client.take().context("no proxy")?;
        drop(proxy.process.take());
        let begun = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_secs_f64();
        self.client = Some(proxy.start(&self.pods, Side::Client)?);
        let answered = self.first_answer(Duration::from_secs(10))?;
        Ok((answered - begun) * 1e3)
    }

    /// Both proxies anew: memory that earlier cases left behind would hide what this one takes.
    pub(crate) fn renew(&mut self) -> anyhow::Result<()> {
        let mut server = self.server.take().context("no proxy")?;
        drop(server.process.take());
        self.server = Some(server.start(&self.pods, Side::Server)?);
        self.restart().map(drop)
    }

    /// An error if one of its programs has ended.
    pub(crate) fn alive(&mut self) -> anyhow::Result<()> {
        let proxies = self
            .client
            .iter_mut()
            .chain(&mut self.server)
            .filter_map(|proxy| proxy.process.as_mut());
        proxies.chain(&mut self.others).try_for_each(Process::alive)
    }

    fn words(&self) -> String {
        let proxies = self
            .client
            .iter()
            .chain(&self.server)
            .filter_map(|proxy| proxy.process.as_ref());
        let words: Vec<String> = proxies
            .chain(&self.others)
            .map(Process::words)
            .filter(|words| !words.is_empty())
            .collect();
        words.join(" || ")
    }
}

/// Folder with the programs of the mesh.
fn programs(options: &Options) -> anyhow::Result<PathBuf> {
    let folder = match &options.weft {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_exe()?
            .parent()
            .context("this program stands nowhere")?
            .to_owned(),
    };
    complete(folder)
}

/// Folder with the programs of the build to compare with.
fn programs_before(options: &Options) -> anyhow::Result<PathBuf> {
    let folder = options.before.as_ref().context("--before DIR")?;
    complete(PathBuf::from(folder))
}

fn complete(folder: PathBuf) -> anyhow::Result<PathBuf> {
    for name in weft::PROGRAMS {
        ensure!(
            folder.join(name).is_file(),
            "{name} is not in {}: cargo build --release --workspace --bins",
            folder.display()
        );
    }
    Ok(folder)
}

/// Files every peer may read: certificates, and a folder to each.
pub(crate) fn prepare(root: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    certs::write(root)?;
    // Proxies run as another user; nginx keeps scratch folders here.
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o777))?;
    Ok(())
}
