//! Signatures as people and machines make them, by real programs where there are some.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nixfleet_trust::author;
use nixfleet_trust::envelope::{AddRefused, Envelope, PayloadType};
use nixfleet_trust::key::{KeyType, PublicKey};
use nixfleet_trust::sign::private_key::{PrivateKey, PrivateKeyFault};
use nixfleet_trust::sign::{self, Signer, agent};
use nixfleet_trust::signature::{NAMESPACE, Signature, SignatureFault};
use nixfleet_trust::trust::Trust;
use serde_json::json;

use crate::support::*;

/// A program of OpenSSH's, or a line that says that it is missing. In CI nothing may be missing.
#[expect(clippy::print_stdout, reason = "`cargo xtask test` collects these lines from tests that passed")]
fn program(name: &str) -> Option<PathBuf> {
    let found = ["/usr/bin", "/usr/local/bin", "/run/current-system/sw/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists());
    if found.is_none() {
        println!("LEFT OUT: signatures by {name}: it is not installed");
        assert!(std::env::var_os("CI").is_none(), "CI needs {name}");
    }
    found
}

/// The program, with nothing of our environment.
#[expect(
    clippy::disallowed_methods,
    reason = "this crate has no edge to nixfleet-sys, and the test has a limit"
)]
fn command(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let status = command.status().expect("it starts");
    assert!(status.success(), "{command:?}: {status}");
}

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nixfleet-trust-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, contents: &[u8]) -> PathBuf {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.file(name);
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.create(true).truncate(true).write(true).mode(0o600).open(&path).expect("a file");
        file.write_all(contents).expect("it is written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An agent that ends with the test.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(folder: &Folder) -> Option<Self> {
        let socket = folder.file("agent");
        let child =
            command(&program("ssh-agent")?).args(["-D", "-a"]).arg(&socket).spawn().expect("it starts");
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(begun.elapsed() < Duration::from_mins(1), "ssh-agent does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Self { child, socket })
    }

    fn ask(&self, request: &[u8]) -> Vec<u8> {
        let mut socket = UnixStream::connect(&self.socket).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_mins(1))).expect("a limit");
        socket.write_all(request).expect("it takes the request");
        let mut header = [0; 4];
        socket.read_exact(&mut header).expect("it answers");
        let mut body = vec![0; agent::body_length(header).expect("a sensible length")];
        socket.read_exact(&mut body).expect("it answers in full");
        body
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::read_to_string(folder.join(name)).expect(name)
}

/// A release that nobody has signed yet.
fn unsigned() -> Envelope {
    let release = serde_json::from_value(fleet().release(1)).expect("a release");
    author::release(&release).expect("it makes sense")
}

/// A fleet whose channel `stable` wants `threshold` of `keys`.
fn trust_in(keys: &[PublicKey], threshold: u32) -> Trust {
    let fleet = fleet();
    let mut root = fleet.root();
    for old in &fleet.stable_keys {
        root["keys"].as_object_mut().expect("an object").remove(&old.id());
    }
    for key in keys {
        root["keys"][key.id().as_str()] = json!(key.to_string());
    }
    let ids: Vec<_> = keys.iter().map(PublicKey::id).collect();
    root["channels"]["stable"]["release"] = json!({ "keys": ids, "threshold": threshold });
    Trust::begin(&fleet.sign_root(&root)).expect("sound")
}

#[test]
fn what_ssh_keygen_signs_a_host_accepts() {
    let Some(keygen) = program("ssh-keygen") else { return };
    let folder = Folder::new("keygen");
    let mut signed = 0;
    for (kind, hash) in
        [("ed25519", "sha512"), ("ed25519", "sha256"), ("ecdsa", "sha512"), ("ecdsa", "sha256")]
    {
        let name = format!("{kind}-{hash}");
        let (file, envelope) = (folder.file(&name), unsigned());
        run(command(&keygen)
            .args(["-q", "-t", kind, "-b", "256", "-N", "", "-C", "a person", "-f"])
            .arg(&file));
        let to_sign = folder.write(&format!("{name}.to-sign"), &envelope.to_sign());
        run(command(&keygen)
            .args(["-q", "-Y", "sign", "-n", NAMESPACE, "-O", &format!("hashalg={hash}"), "-f"])
            .arg(&file)
            .arg(&to_sign));
        let armoured = std::fs::read(to_sign.with_extension("to-sign.sig")).expect("a signature");
        let public = std::fs::read_to_string(file.with_extension("pub")).expect("a public key");
        let key = PublicKey::read(&public).expect("a key");

        assert_eq!(Signature::claimed_key(&armoured).expect("OpenSSH's"), Some(key.clone()));
        let signature = Signature::read(&armoured, &key).expect("OpenSSH's");
        let bytes = envelope.with_signature(&key, signature).expect("it is good").to_bytes();
        let _ = trust_in(&[key], 1).accept_release(&stable(), &bytes, at(NOW)).expect("it is signed");
        signed += 1;
    }
    assert_eq!(signed, 4);
}

#[test]
fn a_signature_that_ssh_keygen_made_for_a_file_does_not_count() {
    let Some(keygen) = program("ssh-keygen") else { return };
    let (folder, envelope) = (Folder::new("namespace"), unsigned());
    let file = folder.file("key");
    run(command(&keygen).args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&file));
    let to_sign = folder.write("to-sign", &envelope.to_sign());
    run(command(&keygen).args(["-q", "-Y", "sign", "-n", "file", "-f"]).arg(&file).arg(&to_sign));
    let armoured = std::fs::read(folder.file("to-sign.sig")).expect("a signature");
    let key =
        PublicKey::read(&std::fs::read_to_string(folder.file("key.pub")).expect("a file")).expect("a key");
    let signature = Signature::read(&armoured, &key).expect("OpenSSH's");
    let refused = envelope.with_signature(&key, signature).expect_err("for another purpose");
    let AddRefused::Bad { fault, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(fault, SignatureFault::OtherNamespace("file".to_owned()));
}

#[test]
fn an_ssh_agent_signs() {
    let folder = Folder::new("agent");
    let Some(running) = Agent::start(&folder) else { return };
    let Some(add) = program("ssh-add") else { return };
    let keygen = program("ssh-keygen").expect("it comes with ssh-add");
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let file = folder.file(kind);
        run(command(&keygen).args(["-q", "-t", kind, "-N", "", "-C", kind, "-f"]).arg(&file));
        run(command(&add).env("SSH_AUTH_SOCK", &running.socket).arg("-q").arg(&file));
    }
    let keys = agent::read_identities(&running.ask(&agent::request_identities())).expect("its keys");
    let comments: Vec<_> = keys.iter().map(|key| key.comment.as_str()).collect();
    assert_eq!(comments, ["ed25519", "ecdsa"], "the RSA key is passed over");

    let mut envelope = unsigned();
    for held in &keys {
        let answer = running.ask(&agent::request_signature(&held.key, &envelope.to_sign()));
        let signature = agent::read_signature(&answer, &held.key).expect("a signature");
        envelope = envelope.with_signature(&held.key, signature).expect("it is good");
    }
    let keys: Vec<_> = keys.into_iter().map(|held| held.key).collect();
    let bytes = envelope.to_bytes();
    let _ = trust_in(&keys, 2).accept_release(&stable(), &bytes, at(NOW)).expect("both signed");

    let stranger = Key::ed25519(99).public();
    let answer = running.ask(&agent::request_signature(&stranger, b"anything"));
    assert_eq!(agent::read_signature(&answer, &stranger), Err(agent::AgentFault::Refused));
}

#[test]
fn key_files_are_read_and_sign() {
    let Some(keygen) = program("ssh-keygen") else { return };
    let folder = Folder::new("files");
    let mut texts = vec![fixture("openssl/ed25519-private.pem"), fixture("openssl/p256-private.pem")];
    for (name, kind) in [("one", "ed25519"), ("two", "ecdsa")] {
        run(command(&keygen)
            .args(["-q", "-t", kind, "-b", "256", "-N", "", "-C", name, "-f"])
            .arg(folder.file(name)));
        texts.push(std::fs::read_to_string(folder.file(name)).expect("a key file"));
    }
    let mut envelope = unsigned();
    let mut keys = Vec::new();
    for text in &texts {
        let key = PrivateKey::read(text).expect("a private key");
        envelope = sign::add(&envelope, &key).expect("it signs");
        keys.push(key.public_key().clone());
    }
    let bytes = envelope.to_bytes();
    let _ = trust_in(&keys, 4).accept_release(&stable(), &bytes, at(NOW)).expect("all four signed");

    // And what we write, ssh-keygen reads: it derives the same public key.
    for (number, text) in texts
        .iter()
        .chain([&PrivateKey::generate().expect("randomness").to_openssh("x").expect("a text").to_string()])
        .enumerate()
    {
        let key = PrivateKey::read(text).expect("a private key");
        let written = key.to_openssh("by nixfleet").expect("randomness");
        let file = folder.write(&format!("written-{number}"), written.as_bytes());
        let derived =
            command(&keygen).args(["-y", "-f"]).arg(&file).stdout(Stdio::piped()).output().expect("it runs");
        let derived = String::from_utf8(derived.stdout).expect("text");
        assert_eq!(derived.trim(), format!("{} by nixfleet", key.public_key()));
        assert_eq!(PrivateKey::read(&written).expect("its own form").public_key(), key.public_key());
    }
}

#[test]
fn private_keys_that_are_not_taken_are_told_what_to_do() {
    let Some(keygen) = program("ssh-keygen") else { return };
    let folder = Folder::new("refused");
    let made = |name: &str, arguments: &[&str]| {
        run(command(&keygen).args(["-q", "-C", "x", "-f"]).arg(folder.file(name)).args(arguments));
        std::fs::read_to_string(folder.file(name)).expect("a key file")
    };
    let good = made("good", &["-t", "ed25519", "-N", ""]);
    let lines: Vec<&str> = good.lines().collect();
    let torn = [lines[0], lines[1], lines[lines.len() - 1]].join("\n");
    for (text, fault, hint) in [
        (made("locked", &["-t", "ed25519", "-N", "secret"]), PrivateKeyFault::Encrypted, "ssh-add"),
        (fixture("openssl/p256-encrypted.pem"), PrivateKeyFault::Encrypted, "ssh-add"),
        (fixture("openssl/p256-old-private.pem"), PrivateKeyFault::OldPem, "openssl pkcs8"),
        (fixture("ssh/ed25519.pub"), PrivateKeyFault::PublicKey, "taken are"),
        (
            made("rsa", &["-t", "rsa", "-N", ""]),
            PrivateKeyFault::OtherType("ssh-rsa".to_owned()),
            "taken are",
        ),
        (
            made("p384", &["-t", "ecdsa", "-b", "384", "-N", ""]),
            PrivateKeyFault::OtherType("ecdsa-sha2-nistp384".to_owned()),
            "taken are",
        ),
        ("secret".to_owned(), PrivateKeyFault::UnknownForm, "taken are"),
        (good.lines().next().expect("a line").to_owned(), PrivateKeyFault::NotBase64, "taken are"),
        (torn, PrivateKeyFault::NotBase64, "taken are"),
    ] {
        let refused = PrivateKey::read(&text).expect_err("not taken");
        assert_eq!(refused.0, fault);
        assert!(refused.to_string().contains(hint), "{refused}");
    }
}

#[test]
fn every_damaged_byte_of_a_key_file_is_noticed_or_does_not_matter() {
    let key = PrivateKey::generate().expect("randomness");
    let text = key.to_openssh("a comment").expect("randomness");
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let bytes = data_encoding::BASE64.decode(body.as_bytes()).expect("base64");
    let mut looked_at = 0;
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let base64 = data_encoding::BASE64.encode(&damaged);
        let text =
            format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{base64}\n-----END OPENSSH PRIVATE KEY-----");
        if let Ok(read) = PrivateKey::read(&text) {
            // The comment and the KDF's options are nobody's business.
            assert_eq!(read.public_key(), key.public_key(), "byte {at}");
        }
        looked_at += 1;
    }
    assert!(looked_at > 200);
}

#[test]
fn signatures_are_added_one_at_a_time_in_any_order() {
    let texts = ["openssl/ed25519-private.pem", "openssl/p256-private.pem"].map(fixture);
    let [first, second] = texts.each_ref().map(|text| PrivateKey::read(text).expect("a private key"));
    let envelope = unsigned();
    let one = sign::add(&envelope, &first).expect("it signs");
    // The other one signs elsewhere, later, from the file.
    let elsewhere = Envelope::read(&one.to_bytes(), PayloadType::Release).expect("its one form");
    assert_eq!(elsewhere, one);
    let signature = second.sign(&elsewhere.to_sign()).expect("it signs");
    let one_way = elsewhere.with_signature(second.public_key(), signature.clone()).expect("good");
    let other_way = envelope.with_signature(second.public_key(), signature).expect("good");
    let other_way = sign::add(&other_way, &first).expect("it signs");
    assert_eq!(one_way.to_bytes(), other_way.to_bytes());
    assert_eq!(one_way.digest(), envelope.digest());

    let trust = trust_in(&[first.public_key().clone(), second.public_key().clone()], 2);
    assert!(trust.accept_release(&stable(), &one.to_bytes(), at(NOW)).is_err(), "one is missing");
    let _ = trust.accept_release(&stable(), &one_way.to_bytes(), at(NOW)).expect("both signed");
    assert_eq!(first.public_key().key_type(), KeyType::Ed25519);
    assert_eq!(second.public_key().key_type(), KeyType::P256);
}

#[test]
fn a_signature_is_verified_before_it_is_added() {
    let (envelope, key) = (unsigned(), Key::ed25519(80));
    let other_bytes = Signature::read(&key.sign(b"something else"), &key.public()).expect("64 bytes");
    let refused = envelope.with_signature(&key.public(), other_bytes).expect_err("over other bytes");
    assert!(matches!(refused, AddRefused::Bad { fault: SignatureFault::DoesNotVerify, .. }));
    let by_another =
        Signature::read(&Key::ed25519(81).sign(&envelope.to_sign()), &key.public()).expect("64 bytes");
    let refused = envelope.with_signature(&key.public(), by_another).expect_err("by another key");
    assert!(refused.to_string().contains(key.public().id().as_str()), "{refused}");
    // Not even a key signs twice: the second signature takes the place of the first.
    let good = |_| Signature::read(&key.sign(&envelope.to_sign()), &key.public()).expect("64 bytes");
    let twice = envelope
        .with_signature(&key.public(), good(1))
        .and_then(|it| it.with_signature(&key.public(), good(2)));
    assert_eq!(twice.expect("good").signatures().len(), 1);
}

#[test]
fn answers_of_an_agent_that_are_none_are_refused() {
    use agent::AgentFault;
    let key = Key::ed25519(1).public();
    assert_eq!(agent::read_signature(&[5], &key), Err(AgentFault::Refused));
    assert_eq!(agent::read_signature(&[12], &key), Err(AgentFault::OtherAnswer { found: 12, wanted: 14 }));
    assert!(matches!(agent::read_signature(&[], &key), Err(AgentFault::Wire(_))));
    assert!(matches!(agent::read_identities(&[12, 0xff, 0xff, 0xff, 0xff]), Err(AgentFault::Wire(_))));
    assert_eq!(agent::read_identities(&[12, 0, 0, 0, 0]), Ok(Vec::new()));
    assert_eq!(agent::body_length([0, 4, 0, 1]), Err(AgentFault::TooLong(256 * 1024 + 1)));
}
