//! What Nix copies into its store before it builds: private keys must not be in it, since everybody on the machine can read
//! the store, and a copy to a cache takes it further.
//!
//! Of a flake in a git tree Nix takes the files that git knows. Of a folder in no git tree, and of every `path:`, it takes all
//! that is there. Which is which follows Nix's own reading of an installable (2.8 to 2.30); a name of a registry and an address
//! elsewhere are never local. Not looked at are `git+file:`, which may name another commit than the one that is here, and the
//! inputs of a flake: they are Nix's to fetch, and have hashes in `flake.lock`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use nixfleet_sys::exec::{Cmd, ExecError, Finished};
use nixfleet_sys::fs::{self, FsError};
use nixfleet_trust::sign::Signer;
use nixfleet_trust::sign::private_key::PrivateKey;

use super::program;

/// Files that are looked at: a folder with more is not what anybody means to copy for a build, and takes Nix minutes.
const FILES_MAX: usize = 300_000;
/// The largest key file: an OpenSSH key has 400 bytes.
const KEY_BYTES_MAX: u64 = 16 * 1024;
/// A seed, or a public key, of Ed25519, in bytes.
const HALF: usize = 32;
/// What stands before the seed in the PKCS#8 form of an Ed25519 key (RFC 8410).
const PKCS8_HEAD: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// Git reads one file to name what it knows; on a slow disk that takes seconds.
const GIT_WITHIN: Duration = Duration::from_secs(20);
/// The names of `FILES_MAX` files, at 200 bytes each.
const GIT_NAMES_BYTES_MAX: usize = 64 << 20;

/// Why something is not built: Nix would copy too much for it.
#[derive(Debug, thiserror::Error)]
pub enum CopiedWhole {
    /// A private key.
    #[error(
        "`{key}` is a private key, and to build {installable} Nix would copy the whole of `{folder}` into /nix/store, where \
         everybody can read it"
    )]
    Key {
        /// What is to be built.
        installable: String,
        /// What would be copied.
        folder: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A private key that git knows.
    #[error(
        "`{key}` is a private key that git knows, and to build {installable} Nix would copy what git knows of `{folder}` into \
         /nix/store, where everybody can read it"
    )]
    Tracked {
        /// What is to be built.
        installable: String,
        /// The git tree.
        folder: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// So much that it is not looked through.
    #[error(
        "to build {installable} Nix would copy the whole of `{folder}` into /nix/store, which has more than {FILES_MAX} \
         files: too many to look for private keys among them"
    )]
    TooMuch {
        /// What is to be built.
        installable: String,
        /// What would be copied.
        folder: PathBuf,
    },
    /// It cannot be looked through.
    #[error(transparent)]
    Unreadable(FsError),
}

/// Why nobody has looked for private keys in a git tree. Nix may still get along, so it is said and not refused.
#[derive(Debug, thiserror::Error)]
pub enum NotLooked {
    /// Nix has a git of its own.
    #[error("there is no git in PATH that says what it knows of `{0}`")]
    NoGit(PathBuf),
    /// It takes too long, or the tree is another user's.
    #[error("git does not say what it knows of `{folder}`")]
    Git {
        /// The git tree.
        folder: PathBuf,
        /// Why.
        source: ExecError,
    },
    /// As large trees of whole companies have.
    #[error("git knows more than {FILES_MAX} files of `{0}`")]
    TooMuch(PathBuf),
}

/// Refuses installables, read from `folder`, for which Nix would copy a private key into its store. Says where nobody has looked.
pub fn refuse_copied_keys<'a>(
    installables: impl IntoIterator<Item = &'a str>,
    folder: &Path,
) -> Result<Vec<NotLooked>, CopiedWhole> {
    // Many hosts come out of one folder, which is looked through once.
    let copied: BTreeMap<Copied, &str> = installables
        .into_iter()
        .filter_map(|installable| Some((copied(installable, folder)?, installable)))
        .collect();
    let mut not_looked = Vec::new();
    for (copied, installable) in copied {
        let installable = installable.to_owned();
        match copied {
            Copied::Whole(folder) => match private_key_in(&folder).map_err(CopiedWhole::Unreadable)? {
                Found::None => {}
                Found::Key(key) => return Err(CopiedWhole::Key { installable, folder, key }),
                Found::TooMuch => return Err(CopiedWhole::TooMuch { installable, folder }),
            },
            Copied::Tracked(folder) => match tracked(&folder) {
                Ok(files) => {
                    let key = first_private_key(files).map_err(CopiedWhole::Unreadable)?;
                    if let Some(key) = key {
                        return Err(CopiedWhole::Tracked { installable, folder, key });
                    }
                }
                Err(why) => not_looked.push(why),
            },
        }
    }
    Ok(not_looked)
}

/// Whether the folder is in a git tree, as Nix sees it.
pub fn is_in_git(folder: &Path) -> bool {
    git_tree(folder).is_some()
}

fn git_tree(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|above| above.join(".git").exists())
}

/// What Nix copies of this machine's files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Copied {
    /// All that is in a folder.
    Whole(PathBuf),
    /// What git knows of a tree.
    Tracked(PathBuf),
}

fn copied(installable: &str, folder: &Path) -> Option<Copied> {
    let named = installable.split(['#', '^']).next().unwrap_or_default();
    let reference = named.split('?').next().unwrap_or_default();
    match reference.split_once(':') {
        // An empty authority is allowed: `path:///srv/fleet`.
        Some(("path", rest)) => {
            Some(Copied::Whole(below(folder, &decoded(rest.strip_prefix("//").unwrap_or(rest)))))
        }
        Some((scheme, _)) if is_scheme(scheme) => None,
        // No name of a registry has a query.
        Some(_) | None if is_registry_name(named) => None,
        Some(_) | None => {
            // Nix follows links first, looks for the flake upwards from there, and for git from the flake.
            let named = fs::resolve(&folder.join(reference)).unwrap_or_else(|_| below(folder, reference));
            let flake = named.ancestors().find(|above| above.join("flake.nix").exists())?;
            Some(match git_tree(flake) {
                Some(tree) => Copied::Tracked(tree.to_owned()),
                None => Copied::Whole(flake.to_owned()),
            })
        }
    }
}

fn is_scheme(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.chars().all(rest)
}

/// `NAME`, `NAME/REF` or `NAME/REF/REV` of a flake registry; what begins like one and has other characters is a path to Nix.
fn is_registry_name(text: &str) -> bool {
    let (name, rest) = text.split_once('/').unwrap_or((text, ""));
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let in_rest = |c: char| in_name(c) || matches!(c, '.' | '/' | '@' | '+');
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(in_name)
        && rest.chars().all(in_rest)
}

/// `path` from `folder`, without `.` and `..`; links stay, as Nix does it for a `path:`.
fn below(folder: &Path, path: &str) -> PathBuf {
    let mut out = folder.to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::RootDir => out = PathBuf::from("/"),
            Component::ParentDir => {
                out.pop();
            }
            Component::Normal(name) => out.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// The path of a URL: `%20` is a space. What is no such escape stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What was found in a folder.
enum Found {
    None,
    Key(PathBuf),
    TooMuch,
}

/// The first private key below `folder`. Links are not followed, since Nix copies them as links. A folder `.git` is passed over,
/// though Nix copies it too: what was committed is compressed in it, and a key is not found by its words there.
fn private_key_in(folder: &Path) -> Result<Found, FsError> {
    let (mut waiting, mut seen) = (vec![folder.to_owned()], 0);
    while let Some(folder) = waiting.pop() {
        for (path, kind) in listed(&folder)? {
            seen += 1;
            if seen > FILES_MAX {
                return Ok(Found::TooMuch);
            } else if kind.is_dir() {
                waiting.extend((path.file_name() != Some(".git".as_ref())).then_some(path));
            } else if kind.is_file() && is_private_key(&path)? {
                return Ok(Found::Key(path));
            }
        }
    }
    Ok(Found::None)
}

/// The files of a tree that git knows.
fn tracked(tree: &Path) -> Result<Vec<PathBuf>, NotLooked> {
    let git = program("git").ok_or_else(|| NotLooked::NoGit(tree.to_owned()))?;
    let asked = Cmd::new(git)
        .env_from_ours(&["PATH", "HOME", "XDG_CONFIG_HOME"])
        .env("LC_ALL", "C")
        // A look must not write, nor wait for whoever does.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .args(["ls-files", "-z"])
        .in_folder(tree)
        .deadline(GIT_WITHIN)
        .stdout_bytes_max(GIT_NAMES_BYTES_MAX);
    let told = asked
        .run_blocking()
        .and_then(Finished::success)
        .map_err(|source| NotLooked::Git { folder: tree.to_owned(), source })?;
    let names = told.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let files: Vec<PathBuf> = names.map(|name| tree.join(OsStr::from_bytes(name))).collect();
    if files.len() > FILES_MAX { Err(NotLooked::TooMuch(tree.to_owned())) } else { Ok(files) }
}

/// The first of these files that is a private key. One that is not there any more, a link and a submodule are none.
fn first_private_key(files: Vec<PathBuf>) -> Result<Option<PathBuf>, FsError> {
    for file in files {
        let is_file = std::fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file());
        if is_file && is_private_key(&file)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// What is in a folder, in the order of names; nothing in one that is not there.
fn listed(folder: &Path) -> Result<Vec<(PathBuf, std::fs::FileType)>, FsError> {
    let list = || -> io::Result<Vec<_>> {
        let one = |entry: io::Result<std::fs::DirEntry>| {
            entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))
        };
        std::fs::read_dir(folder)?.map(one).collect()
    };
    match list() {
        Ok(mut found) => {
            found.sort_by(|(one, _), (other, _)| one.cmp(other));
            Ok(found)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(source) => Err(FsError { action: "list", path: folder.to_owned(), source }),
    }
}

/// Whether the file is a private key that signs releases, or paths for a cache; its name says nothing.
fn is_private_key(path: &Path) -> Result<bool, FsError> {
    let bytes = match fs::read_start(path, KEY_BYTES_MAX) {
        Err(error) if error.is_not_found() => return Ok(false),
        read => read?,
    };
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    Ok(is_cache_key(text.trim()) || (text.contains("-----BEGIN ") && PrivateKey::read(text).is_ok()))
}

/// `NAME:` and a seed with its public key, as `nix-store --generate-binary-cache-key` writes them. A signature of a path and a
/// digest of 64 bytes look the same from outside, and are no pair.
fn is_cache_key(text: &str) -> bool {
    let Some((_, base64)) = text.split_once(':') else { return false };
    let Ok(bytes) = BASE64.decode(base64.as_bytes()) else { return false };
    let Some((seed, public)) = bytes.split_at_checked(HALF).filter(|(_, public)| public.len() == HALF) else {
        return false;
    };
    public_key_of(seed).is_some_and(|of_seed| of_seed == public)
}

/// The public key that belongs to an Ed25519 seed.
fn public_key_of(seed: &[u8]) -> Option<Vec<u8>> {
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        BASE64.encode(&[PKCS8_HEAD, seed].concat())
    );
    // The wire form ends with the key.
    let wire = PrivateKey::read(&pem).ok()?.public_key().blob();
    wire.len().checked_sub(HALF).map(|at| wire[at..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::make_dir(path.parent().expect("it has one")).expect("made");
        fs::write_atomic(path, text.as_bytes()).expect("written");
    }

    #[test]
    fn nix_copies_a_path_whole_and_a_flake_that_is_in_no_git_tree() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = fs::resolve(dir.path()).expect("it is there");
        let (bare, git) = (place.join("bare"), place.join("git"));
        write(&bare.join("flake.nix"), "");
        write(&git.join("fleet/flake.nix"), "");
        write(&git.join(".git/HEAD"), "");
        let inner = bare.join("fleet");
        fs::make_dir(&inner).expect("made");
        let link = |at: &Path, to: &Path| std::os::unix::fs::symlink(to, at).expect("linked");
        link(&bare.join("to-git"), &git.join("fleet"));
        link(&git.join("to-bare"), &bare);
        let whole = |folder: &Path| Some(Copied::Whole(folder.to_owned()));
        let tracked = || Some(Copied::Tracked(git.clone()));
        for (installable, from, wanted) in [
            (".#web", &bare, whole(&bare)),
            (".#web", &inner, whole(&bare)),
            ("#web", &bare, whole(&bare)),
            ("..?dir=x#web", &inner, whole(&bare)),
            ("fleet?dir=x#web", &bare, whole(&bare)),
            (".^out", &bare, whole(&bare)),
            (".#web", &git.join("fleet"), tracked()),
            ("./to-git#web", &bare, tracked()),
            ("./to-bare#web", &git, whole(&bare)),
            ("path:.#web", &git.join("fleet"), whole(&git.join("fleet"))),
            ("path:..?dir=fleet#web", &git.join("fleet"), whole(&git)),
            ("path:./a%20b#web", &bare, whole(&bare.join("a b"))),
            ("nixpkgs#hello", &bare, None),
            ("nixpkgs/nixos-25.11#hello", &bare, None),
            ("fleet.d#web", &bare, whole(&bare)),
            ("flake:nixpkgs#hello", &bare, None),
            ("git+file:.#web", &bare, None),
            ("github:NixOS/nixpkgs#hello", &bare, None),
        ] {
            assert_eq!(copied(installable, from), wanted, "{installable} in {}", from.display());
        }
        let absolute = format!("{}#web", bare.display());
        assert_eq!(copied(&absolute, &git), whole(&bare));
        for prefix in ["path:", "path://"] {
            let absolute = format!("{prefix}{}#web", git.display());
            assert_eq!(copied(&absolute, &bare), whole(&git));
        }
    }

    #[test]
    fn private_keys_are_known_by_what_is_in_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let key = PrivateKey::generate().expect("randomness");
        let openssh = key.to_openssh("a").expect("text");
        // Test 1 of RFC 8032, as a cache has it.
        let cache = "cache-1:nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==";
        let signature = format!("cache-1:{}==", "A".repeat(86));
        let public = String::from(key.public_key().clone());
        for (name, text, wanted) in [
            ("a/notes.txt", openssh.as_str(), true),
            ("b/cache", cache, true),
            ("b/signature", signature.as_str(), false),
            ("c/key.pub", public.as_str(), false),
            ("d/README.md", "begins with `-----BEGIN OPENSSH PRIVATE KEY-----`", false),
            (".git/key", openssh.as_str(), false),
        ] {
            let folder = dir.path().join(name.replace('/', "-"));
            write(&folder.join(name), text);
            let found = private_key_in(&folder).expect("it can be looked through");
            assert_eq!(matches!(&found, Found::Key(path) if path.ends_with(name)), wanted, "{name}");
        }
    }

    #[test]
    fn links_out_of_the_folder_are_copied_as_links_and_not_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let key = PrivateKey::generate().expect("randomness").to_openssh("a").expect("text");
        write(&dir.path().join("keys/release"), &key);
        let flake = dir.path().join("flake");
        fs::make_dir(&flake).expect("made");
        std::os::unix::fs::symlink(dir.path().join("keys"), flake.join("keys")).expect("linked");
        std::os::unix::fs::symlink(dir.path().join("keys/release"), flake.join("key")).expect("linked");
        assert!(matches!(private_key_in(&flake), Ok(Found::None)));
    }
}
