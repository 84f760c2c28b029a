//! How to sign, the same for roots and releases.

use std::path::PathBuf;

use clap::Args;
use nixfleet::nix;
use nixfleet::signers::{self, AgentSigner, CommandSigner, FileSigner, NoSigner};
use nixfleet_sys::fs;
use nixfleet_trust::envelope::Envelope;
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::sign::Signer;

use super::ui::{self, Complaint, Done};

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// Sign with this private key file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["agent", "signature", "by", "command"])]
    key: Option<PathBuf>,
    /// Sign through ssh-agent (`SSH_AUTH_SOCK`), with `--by` or the only key that it has of the role
    #[arg(long, conflicts_with_all = ["signature", "command"])]
    agent: bool,
    /// Add a signature that was made elsewhere: raw, or by `ssh-keygen -Y sign -n nixfleet`
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    signature: Option<PathBuf>,
    /// Write the bytes that are to be signed into a file, and sign nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "agent", "signature", "command"])]
    write_bytes: Option<PathBuf>,
    /// The public key that signs, for `--agent`, `--signature` and a command
    #[arg(long, value_name = "FILE")]
    by: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Sign with a command: it gets the bytes on stdin and answers with a signature on stdout
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Where the signature comes from.
pub(crate) enum Chosen {
    /// From a signer.
    Signer(Box<dyn Signer>),
    /// Nowhere yet: the bytes go into a file.
    Bytes(PathBuf),
}

impl SignArgs {
    /// The signer that was asked for; with an agent, one of its keys that `counts`.
    pub(crate) fn choose(&self, counts: impl Fn(&PublicKey) -> bool) -> Result<Chosen, Complaint> {
        if let Some(path) = &self.write_bytes {
            return Ok(Chosen::Bytes(path.clone()));
        }
        let by = self.by.as_deref().map(signers::public_key).transpose()?;
        let signer: Box<dyn Signer> = match (&self.key, self.agent, &self.signature, self.command.as_slice())
        {
            (Some(path), ..) => Box::new(signers::private_key(path).map_err(explain)?),
            (None, true, ..) => {
                let socket = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from).ok_or(NoSigner::NoAgent);
                let wanted = |key: &PublicKey| by.as_ref().map_or_else(|| counts(key), |by| by == key);
                Box::new(AgentSigner::find(&socket.map_err(explain)?, wanted).map_err(explain)?)
            }
            (None, false, Some(path), _) => Box::new(FileSigner::read(path, by).map_err(explain)?),
            (None, false, None, [program, arguments @ ..]) => {
                let by = by.ok_or_else(|| {
                    Complaint::usage(
                        "a command does not say by which key it signs: give its public key with `--by`",
                    )
                })?;
                let found = nix::program(program)
                    .ok_or_else(|| Complaint::refused(format!("there is no program `{program}`")))?;
                Box::new(CommandSigner::new(found, arguments.to_vec(), by))
            }
            (None, false, None, []) => {
                return Err(Complaint::usage(
                    "who signs? give `--key`, `--agent`, `--signature` or `-- COMMAND`",
                ));
            }
        };
        Ok(Chosen::Signer(signer))
    }
}

/// Writes what is to be signed, and says how to go on.
pub(crate) fn write_bytes(path: &std::path::Path, envelope: &Envelope, verb: &str) -> Done {
    fs::write_atomic_mode(path, &envelope.to_sign(), 0o644)?;
    let file = path.display();
    ui::say(&format!(
        "wrote the bytes to sign; for example `ssh-keygen -Y sign -n nixfleet -f KEY {file}`, then `nixfleet {verb} --signature {file}.sig`"
    ));
    Ok(())
}

fn explain(error: NoSigner) -> Complaint {
    let hint = match &error {
        NoSigner::Exposed { path, .. } => {
            Some(format!("if nobody has read it yet: `chmod 600 {}`", path.display()))
        }
        NoSigner::NoAgent => {
            Some("start one with `eval $(ssh-agent)` and add a key with `ssh-add`".to_owned())
        }
        NoSigner::NoSuchKey(_) => {
            Some("add one with `ssh-add`; `nixfleet root show` lists the keys of each role".to_owned())
        }
        NoSigner::SeveralKeys(_) => Some("say which with `--by PUBLIC-KEY-FILE`".to_owned()),
        NoSigner::SignatureByWhom(_) => Some("give the public key with `--by`".to_owned()),
        NoSigner::File(_)
        | NoSigner::NotText(_)
        | NoSigner::Private { .. }
        | NoSigner::Public { .. }
        | NoSigner::Agent { .. }
        | NoSigner::AgentAnswer(_)
        | NoSigner::Signature { .. } => None,
    };
    let unreachable = matches!(error, NoSigner::Agent { .. });
    let complaint = if unreachable { Complaint::unreachable(&error) } else { error.into() };
    match hint {
        Some(hint) => complaint.hint(hint),
        None => complaint,
    }
}
