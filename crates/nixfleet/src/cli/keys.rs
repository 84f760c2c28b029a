//! `nixfleet keys`: make key files, and show what is in one. Private halves are written and never shown.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use nixfleet::signers;
use nixfleet_sys::fs;
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::sign::Signer;
use nixfleet_trust::sign::private_key::PrivateKey;
use serde::Serialize;

use super::ui::{self, Complaint, Done, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum KeysVerb {
    /// Make a key: FILE is the private half, FILE.pub the public one
    New(NewArgs),
    /// Show the fingerprints of keys; of a private key, of its public half
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// Where the private key goes; it must not be there yet
    file: PathBuf,
    /// What kind of key
    #[arg(long = "type", value_enum, default_value_t = NewType::Ed25519)]
    kind: NewType,
    /// What it is called, for people
    #[arg(long, default_value = "nixfleet")]
    comment: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NewType {
    /// Ed25519
    Ed25519,
    /// ECDSA over P-256
    P256,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Public or private key files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// A key as `keys show -o json` prints it; version 1.
#[derive(Debug, Serialize)]
struct Shown {
    file: PathBuf,
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    public: String,
}

pub(crate) fn keys(verb: KeysVerb) -> Done {
    match verb {
        KeysVerb::New(args) => new(&args),
        KeysVerb::Show(args) => show(&args),
    }
}

fn new(args: &NewArgs) -> Done {
    let key = write_new(&args.file, args.kind, &args.comment)?;
    ui::say(&format!(
        "wrote {} (keep it secret) and {}",
        args.file.display(),
        public_path(&args.file).display()
    ));
    ui::data(key.id().as_str());
    Ok(())
}

/// Makes a key and writes both halves; refuses to replace one, since a lost signing key cannot be had again.
pub(crate) fn write_new(file: &Path, kind: NewType, comment: &str) -> Result<PublicKey, Complaint> {
    let public = public_path(file);
    if let Some(there) = [file, public.as_path()].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(Complaint::refused(format!("`{}` is there already", there.display()))
            .hint("give another name: a signing key that is overwritten is lost"));
    }
    let key = match kind {
        NewType::Ed25519 => PrivateKey::generate()?,
        NewType::P256 => PrivateKey::generate_p256()?,
    };
    if let Some(parent) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::make_dir(parent)?;
    }
    fs::write_atomic(file, key.to_openssh(comment)?.as_bytes())?;
    let line = format!("{} {comment}\n", String::from(key.public_key().clone()));
    fs::write_atomic_mode(&public, line.as_bytes(), 0o644)?;
    Ok(key.public_key().clone())
}

fn public_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

fn show(args: &ShowArgs) -> Done {
    let mut keys = Vec::new();
    for file in &args.files {
        let key = signers::public_key(file)?;
        keys.push(Shown {
            file: file.clone(),
            id: key.id().to_string(),
            kind: key.key_type().ssh_name(),
            public: String::from(key),
        });
    }
    match args.output {
        Output::Name => ui::lines(keys.iter().map(|key| &key.id)),
        Output::Table => {
            let row = |key: &Shown| vec![key.id.clone(), key.kind.to_owned(), key.file.display().to_string()];
            ui::table(&["FINGERPRINT", "TYPE", "FILE"], &keys.iter().map(row).collect::<Vec<_>>());
        }
        Output::Json => {
            #[derive(Serialize)]
            struct Keys {
                keys: Vec<Shown>,
            }
            ui::json(&Keys { keys })?;
        }
    }
    Ok(())
}
