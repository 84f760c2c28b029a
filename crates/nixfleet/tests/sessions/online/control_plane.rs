//! A control plane in a process of its own, and the command line that asks it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_sys::exec::{Cmd, Heard, Listener};
use nixfleet_sys::fs;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::support::{NIXFLEET, Said, Session, said};

/// A generous limit for anything that should be there at once.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// The program of the control plane: beside ours, where cargo builds the programs of a workspace.
fn program() -> PathBuf {
    match std::env::var_os("NIXFLEET_CONTROL_PLANE_BIN").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => Path::new(NIXFLEET).with_file_name("nixfleet-control-plane"),
    }
}

/// Whether the control plane was built. In CI what cannot run is a failure.
#[allow(clippy::print_stdout, reason = "`cargo xtask test` collects these lines from tests that passed")]
pub(crate) fn is_built() -> bool {
    if program().exists() {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "in CI nothing is left out: `{}` is not built",
        program().display()
    );
    println!("LEFT OUT: asking a control plane (`cargo build -p nixfleet-control-plane`)");
    false
}

/// An authority, and a server's certificate that it signed, with its key, as PEM.
pub(crate) struct Certified {
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: KeyPair,
}

/// A certificate for these names.
pub(crate) fn certified(names: &[&str]) -> Certified {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("randomness")).expect("it signs");
    let key = KeyPair::generate().expect("randomness");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names).expect("names");
    let certificate = params.signed_by(&key, &authority).expect("it signs");
    Certified { authority: authority.pem(), certificate: certificate.pem(), key }
}

/// A control plane that runs.
pub(crate) struct ControlPlane {
    dir: TempDir,
    /// What it is called in its certificate, and where.
    pub(crate) url: String,
    pub(crate) operator: String,
    pub(crate) viewer: String,
    running: Option<JoinHandle<()>>,
    /// Its port while it is away, so that nobody else is given it.
    kept: Option<TcpSocket>,
}

/// Binds a port and does not listen at it: connections are refused, nobody who asks for any port is given it, and whoever asks
/// for this one can listen there all the same.
async fn keep(port: u16) -> TcpSocket {
    loop {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("set");
        if socket.bind(([127, 0, 0, 1], port).into()).is_ok() {
            return socket;
        }
        // A process that was killed while it waits for the disk has it until that is done.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Tells where the program serves.
struct Told(mpsc::Sender<String>);

impl Listener for Told {
    fn line(&mut self, line: &[u8]) -> Heard {
        let line = String::from_utf8_lossy(line);
        let at = line.strip_prefix("serving at ").and_then(|rest| rest.split(',').next());
        if let Some(at) = at {
            let _ = self.0.try_send(at.to_owned());
        }
        Heard::Words
    }
    fn is_word(&self, _line: &[u8]) -> bool {
        true
    }
}

impl ControlPlane {
    /// The control plane of the session's fleet, with an operator `ann` and a viewer `vic`.
    pub(crate) async fn start(session: &Session) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write_atomic(&path, text.as_bytes()).expect("written");
            path.display().to_string()
        };
        let Certified { authority, certificate, key } = certified(&["localhost", "127.0.0.1"]);
        write("ca.pem", &authority);
        let root = write("root.json", &session.read("served/root/1.json"));
        let (certificate, key) =
            (write("server.pem", &certificate), write("server.key", &key.serialize_pem()));
        let database = dir.path().join("control-plane.db").display().to_string();
        let config = format!(
            "listen = \"127.0.0.1:0\"\ncertificate = \"{certificate}\"\ncertificate-key = \"{key}\"\n\
             root = \"{root}\"\ndatabase = \"sqlite:{database}\"\n"
        );
        write("control-plane.toml", &config);
        let (url, operator, viewer) = (String::new(), String::new(), String::new());
        let mut running = Self { dir, url, operator, viewer, running: None, kept: None };
        running.operator = running.token("ann", "operator").await;
        running.viewer = running.token("vic", "viewer").await;
        running.run().await;
        running
    }

    fn cmd(&self, words: &[&str]) -> Cmd {
        let config = self.path("control-plane.toml");
        Cmd::new(program()).args(["--config", &config]).args(words)
    }

    /// A new token.
    pub(crate) async fn token(&self, name: &str, role: &str) -> String {
        let made = said(self.cmd(&["token", "add", name, "--role", role]).run().await);
        assert_eq!(made.code, 0, "{made:?}");
        made.out.trim().to_owned()
    }

    /// Starts it, at any free port.
    pub(crate) async fn run(&mut self) {
        let (told, mut tells) = mpsc::channel(1);
        let cmd = self.cmd(&["run"]).deadline(Duration::from_mins(10));
        self.running = Some(tokio::spawn(async move {
            let ended = cmd.run_heard(&mut Told(told)).await;
            panic!("the control plane ended: {ended:?}");
        }));
        let at = tokio::time::timeout(SOON, tells.recv()).await.expect("it starts").expect("it says where");
        let port = at.rsplit(':').next().expect("a port").to_owned();
        self.url = format!("https://localhost:{port}");
    }

    /// Starts it again where it was.
    pub(crate) async fn again(&mut self) {
        let path = self.path("control-plane.toml");
        let path = Path::new(&path);
        let text = String::from_utf8(fs::read_bounded(path, 1 << 16).expect("there")).expect("text");
        let text = text.replacen("127.0.0.1:0", &format!("127.0.0.1:{}", self.port()), 1);
        fs::write_atomic(path, text.as_bytes()).expect("written");
        self.run().await;
        // It has listened at it since before it said so.
        drop(self.kept.take());
    }

    fn port(&self) -> u16 {
        self.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Ends it at once, and keeps its port.
    pub(crate) async fn kill(&mut self) {
        let running = self.running.take().expect("it runs");
        running.abort();
        // The program ends with what waits for it.
        let _ = running.await;
        self.kept = Some(tokio::time::timeout(SOON, keep(self.port())).await.expect("it is free"));
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(crate) fn authority(&self) -> String {
        let bytes = fs::read_bounded(&self.dir.path().join("ca.pem"), 1 << 20).expect("there");
        String::from_utf8(bytes).expect("PEM")
    }

    /// A verb with a token, as the environment gives it.
    pub(crate) fn verb(&self, session: &Session, token: &str, words: &[&str]) -> Cmd {
        let ca = self.path("ca.pem");
        session
            .verb(words)
            .env("NIXFLEET_SERVER", &self.url)
            .env("NIXFLEET_TOKEN", token)
            .env("NIXFLEET_CA", ca)
    }

    /// What an operator is told.
    pub(crate) async fn operate(&self, session: &Session, words: &[&str]) -> Said {
        said(self.verb(session, &self.operator, words).run().await)
    }

    /// A verb of an operator that must end well; its standard output.
    pub(crate) async fn done(&self, session: &Session, words: &[&str]) -> String {
        let said = self.operate(session, words).await;
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        said.out
    }

    /// What a viewer is told.
    pub(crate) async fn view(&self, session: &Session, words: &[&str]) -> Said {
        said(self.verb(session, &self.viewer, words).run().await)
    }
}
