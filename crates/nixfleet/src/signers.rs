//! Who signs: a key file, an `ssh-agent`, a signature made elsewhere, or a command.
//!
//! Each is a [`Signer`]: what it answers is verified by `nixfleet_trust::sign::add` before anything is written, so a hook
//! that answers rubbish costs nothing. Secrets stay where they are: a key file is read and wiped, and the others never show
//! theirs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_sys::exec::Cmd;
use nixfleet_sys::fs::{self, FsError};
use nixfleet_trust::key::{KeyRefused, PublicKey};
use nixfleet_trust::sign::agent::{self, AgentFault, AgentKey};
use nixfleet_trust::sign::private_key::{PrivateKey, PrivateKeyRefused};
use nixfleet_trust::sign::{SignFailed, Signer};
use nixfleet_trust::signature::{Signature, SignatureFault};

/// How long a person or a token may take: to find it, touch it and type a PIN.
pub const SIGN_DEADLINE: Duration = Duration::from_mins(1);
/// The largest key or signature file: a P-256 key in PEM has 250 bytes, an OpenSSH signature 600.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// What a command may print.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why there is no signer or key.
#[derive(Debug, thiserror::Error)]
pub enum NoSigner {
    /// The file.
    #[error(transparent)]
    File(FsError),
    /// It is no text.
    #[error("`{0}` is not a text, so it is no key that is taken here")]
    NotText(PathBuf),
    /// It is no private key.
    #[error("`{path}` cannot be used to sign: {refused}")]
    Private {
        /// The file.
        path: PathBuf,
        /// Why.
        refused: PrivateKeyRefused,
    },
    /// It is no public key.
    #[error("`{path}` is no public key: {refused}")]
    Public {
        /// The file.
        path: PathBuf,
        /// Why.
        refused: KeyRefused,
    },
    /// Others could have read it.
    #[error("`{path}` can be read by others (mode {mode:04o}), so its key is not secret")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// There is no agent.
    #[error("there is no ssh-agent: SSH_AUTH_SOCK is not set")]
    NoAgent,
    /// The agent cannot be talked to.
    #[error("the ssh-agent at `{socket}` cannot be talked to")]
    Agent {
        /// Where.
        socket: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It says what is not understood.
    #[error(transparent)]
    AgentAnswer(AgentFault),
    /// It does not have a key that would count.
    #[error("the ssh-agent has no key of this role; it has {}", list(.0))]
    NoSuchKey(Vec<AgentKey>),
    /// Which one?
    #[error("the ssh-agent has several keys of this role: {}", list(.0))]
    SeveralKeys(Vec<AgentKey>),
    /// A signature file that cannot be read.
    #[error("`{path}` is no signature: {fault}")]
    Signature {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: SignatureFault,
    },
    /// A raw signature says nothing of its key.
    #[error("`{0}` does not say by which key it is")]
    SignatureByWhom(PathBuf),
}

fn list(keys: &[AgentKey]) -> String {
    match keys {
        [] => "none".to_owned(),
        keys => keys
            .iter()
            .map(|key| format!("{} ({})", key.key.id(), key.comment))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// The private key in a file that only its owner can read.
pub fn private_key(path: &Path) -> Result<PrivateKey, NoSigner> {
    use std::os::unix::fs::PermissionsExt;
    let text = text_of(path)?;
    let key =
        PrivateKey::read(&text).map_err(|refused| NoSigner::Private { path: path.to_owned(), refused })?;
    let mode = std::fs::metadata(path).map_or(0, |meta| meta.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        return Err(NoSigner::Exposed { path: path.to_owned(), mode });
    }
    Ok(key)
}

/// The public key in a file; of a private key's file, its public half.
pub fn public_key(path: &Path) -> Result<PublicKey, NoSigner> {
    let text = text_of(path)?;
    match PublicKey::read(&text) {
        Ok(key) => Ok(key),
        Err(refused) => match PrivateKey::read(&text) {
            Ok(private) => Ok(private.public_key().clone()),
            Err(_) => Err(NoSigner::Public { path: path.to_owned(), refused }),
        },
    }
}

fn text_of(path: &Path) -> Result<String, NoSigner> {
    let bytes = fs::read_bounded(path, FILE_BYTES_MAX).map_err(NoSigner::File)?;
    String::from_utf8(bytes).map_err(|_| NoSigner::NotText(path.to_owned()))
}

/// An `ssh-agent` with one of its keys.
#[derive(Debug)]
pub struct AgentSigner {
    socket: PathBuf,
    key: PublicKey,
}

impl AgentSigner {
    /// The agent at `socket` with its only key that `counts`.
    pub fn find(socket: &Path, counts: impl Fn(&PublicKey) -> bool) -> Result<Self, NoSigner> {
        let keys = agent_keys(socket)?;
        let fitting: Vec<AgentKey> = keys.iter().filter(|key| counts(&key.key)).cloned().collect();
        match fitting.as_slice() {
            [only] => Ok(Self { socket: socket.to_owned(), key: only.key.clone() }),
            [] => Err(NoSigner::NoSuchKey(keys)),
            [..] => Err(NoSigner::SeveralKeys(fitting)),
        }
    }
}

/// The keys that an agent holds, as far as they can sign here.
pub fn agent_keys(socket: &Path) -> Result<Vec<AgentKey>, NoSigner> {
    let body = ask(socket, &agent::request_identities())?;
    agent::read_identities(&body).map_err(NoSigner::AgentAnswer)
}

/// One question to the agent: its answer's body.
fn ask(socket: &Path, question: &[u8]) -> Result<Vec<u8>, NoSigner> {
    let failed = |source| NoSigner::Agent { socket: socket.to_owned(), source };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(SIGN_DEADLINE)).map_err(failed)?;
    stream.set_write_timeout(Some(SIGN_DEADLINE)).map_err(failed)?;
    stream.write_all(question).map_err(failed)?;
    let mut header = [0; 4];
    stream.read_exact(&mut header).map_err(failed)?;
    let mut body = vec![0; agent::body_length(header).map_err(NoSigner::AgentAnswer)?];
    stream.read_exact(&mut body).map_err(failed)?;
    Ok(body)
}

impl Signer for AgentSigner {
    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignFailed> {
        let failed =
            |cause| SignFailed { signer: format!("the ssh-agent at `{}`", self.socket.display()), cause };
        let body = ask(&self.socket, &agent::request_signature(&self.key, message))
            .map_err(|error| failed(Box::new(error)))?;
        agent::read_signature(&body, &self.key).map_err(|fault| failed(Box::new(fault)))
    }
}

/// A signature that was made elsewhere, such as by `ssh-keygen -Y sign -n nixfleet`.
#[derive(Debug)]
pub struct FileSigner {
    key: PublicKey,
    signature: Signature,
}

impl FileSigner {
    /// The signature in a file; `by` says by which key, which an OpenSSH signature says itself.
    pub fn read(path: &Path, by: Option<PublicKey>) -> Result<Self, NoSigner> {
        let bytes = fs::read_bounded(path, FILE_BYTES_MAX).map_err(NoSigner::File)?;
        let unreadable = |fault| NoSigner::Signature { path: path.to_owned(), fault };
        let claimed = Signature::claimed_key(&bytes).map_err(unreadable)?;
        let key = by.or(claimed).ok_or_else(|| NoSigner::SignatureByWhom(path.to_owned()))?;
        let signature = Signature::read(&bytes, &key).map_err(unreadable)?;
        Ok(Self { key, signature })
    }
}

impl Signer for FileSigner {
    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn sign(&self, _message: &[u8]) -> Result<Signature, SignFailed> {
        Ok(self.signature.clone())
    }
}

/// A program that gets the bytes on its standard input and answers with a signature on its standard output.
///
/// It is run with our whole environment, since it is the operator's own and may need credentials, and without a shell.
#[derive(Debug)]
pub struct CommandSigner {
    program: PathBuf,
    arguments: Vec<String>,
    key: PublicKey,
}

impl CommandSigner {
    /// `program` (its absolute path) with `arguments`, which signs with `key`.
    pub fn new(program: PathBuf, arguments: Vec<String>, key: PublicKey) -> Self {
        Self { program, arguments, key }
    }
}

impl Signer for CommandSigner {
    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignFailed> {
        let failed = |cause| SignFailed { signer: format!("`{}`", self.program.display()), cause };
        let cmd = std::env::vars_os()
            .fold(Cmd::new(&self.program), |cmd, (name, value)| cmd.env(name, value))
            .args(&self.arguments)
            .stdin(message)
            .stdout_bytes_max(ANSWER_BYTES_MAX)
            .deadline(SIGN_DEADLINE);
        let finished = cmd.run_blocking().and_then(nixfleet_sys::exec::Finished::success);
        let finished = finished.map_err(|error| failed(Box::new(error)))?;
        Signature::read(&finished.stdout, &self.key).map_err(|fault| failed(Box::new(fault)))
    }
}
