//! The real program, as a process of its own: what it says is kept, and it ends with what started it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nixfleet_control_plane::config::Database;
use nixfleet_sys::exec::{Cmd, Heard, Listener};
use nixfleet_sys::fs;
use tokio::task::JoinHandle;

use crate::running::Running;

/// It ends itself after so long, whatever became of the test.
const LIVES: Duration = Duration::from_mins(40);

/// What it has said so far. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }
}

impl Listener for Said {
    fn line(&mut self, line: &[u8]) -> Heard {
        let mut said = self.0.lock().expect("no panic");
        said.extend_from_slice(line);
        said.push(b'\n');
        Heard::Words
    }

    fn is_word(&self, _: &[u8]) -> bool {
        true
    }
}

/// A process of the control plane.
pub(crate) struct Program {
    task: JoinHandle<()>,
    pub(crate) said: Said,
}

impl Drop for Program {
    fn drop(&mut self) {
        // The process belongs to the task and is killed with it.
        self.task.abort();
    }
}

impl Program {
    /// Starts one with this configuration.
    pub(crate) fn start(config: PathBuf) -> Self {
        let cmd = Cmd::new(env!("CARGO_BIN_EXE_nixfleet-control-plane")).arg("--config").arg(config);
        let (cmd, said) = (cmd.arg("run").deadline(LIVES), Said::default());
        let mut heard = said.clone();
        let task = tokio::spawn(async move { drop(cmd.run_heard(&mut heard).await) });
        Self { task, said }
    }

    /// Kills it, and returns when it is gone.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

/// Writes the configuration of a process that serves what `running` asks at `port`.
pub(crate) fn configured(running: &Running, name: &str, port: u16) -> PathBuf {
    let config = &running.config;
    let database = match &config.database {
        Database::Postgres(address) => address.clone(),
        Database::Sqlite(path) => format!("sqlite:{}", path.display()),
    };
    let text = format!(
        "listen = \"127.0.0.1:{port}\"\ncertificate = \"{}\"\ncertificate-key = \"{}\"\nroot = \"{}\"\n\
         database = \"{database}\"\n",
        config.certificate.display(),
        config.certificate_key.display(),
        config.root.display(),
    );
    let path = running.dir.path().join(format!("{name}.toml"));
    fs::write_atomic(&path, text.as_bytes()).expect("a file");
    path
}

/// A port that nobody has.
pub(crate) async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound").port()
}
