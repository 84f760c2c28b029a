use std::path::Path;

use proptest::prelude::*;

use super::keys::Shape;
use super::written::{At, What};
use super::*;

const FULL: &str = r#"
root = "/etc/fleet/root.json"
source = "https://releases.example/fleet"
channel = "stable"
host = "web-1"
host-key = "/etc/ssh/key.pub"
state-dir = "/persist/nixfleet"
poll = "5m"
ca-file = "/etc/fleet/ca.pem"
reboot = "never"
"#;

fn none() -> Written {
    Written::default()
}

/// The configuration in a file with this text.
fn loaded(text: &str, flags: &Written) -> Result<Config, ConfigRefused> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("agent.toml");
    fs::write_atomic(&path, text.as_bytes()).expect("written");
    load(&ConfigFile::Named(path), flags, "kernel-name")
}

/// The faults of a text, without the path of the file.
fn faults(text: &str, flags: &Written) -> Vec<String> {
    match loaded(text, flags) {
        Err(ConfigRefused::Faults(_, faults)) => {
            faults.iter().map(|fault| fault.shown(Path::new("f"))).collect()
        }
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_full_file_says_everything() {
    let config = loaded(FULL, &none()).expect("sound");
    assert_eq!(
        config,
        Config {
            root: "/etc/fleet/root.json".into(),
            source: "https://releases.example/fleet".parse().expect("a place"),
            server: ServerChoice::CaFile("/etc/fleet/ca.pem".into()),
            channel: "stable".parse().expect("a name"),
            host: "web-1".parse().expect("a name"),
            host_key: "/etc/ssh/key.pub".into(),
            state_dir: "/persist/nixfleet".into(),
            poll: Duration::from_mins(5),
            reboots: Reboots::Never,
        }
    );
}

#[test]
fn the_files_that_an_agent_reads_once_are_root_key_and_authorities_and_what_proves_it_to_a_control_plane() {
    let files = |text: &str| loaded(text, &none()).expect("sound").files();
    let web = ["/etc/fleet/root.json", "/etc/ssh/key.pub", "/etc/fleet/ca.pem"].map(PathBuf::from);
    assert_eq!(files(FULL), web);
    let led = FULL.replace("https://", "control-plane+https://");
    assert_eq!(files(&led), [&web[..], &["/etc/ssh/key".into()]].concat());
    let folder = "source = '/srv/releases'\nchannel = 'stable'\nhost-key = '/etc/key'\n";
    assert_eq!(files(folder), ["/etc/nixfleet/root.json", "/etc/key"].map(PathBuf::from));
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = loaded("source = '/srv/releases'\nchannel = 'stable'\n", &none()).expect("sound");
    assert_eq!(config.root, Path::new("/etc/nixfleet/root.json"));
    assert_eq!(config.host.as_str(), "kernel-name");
    assert_eq!(config.host_key, Path::new("/etc/ssh/ssh_host_ed25519_key.pub"));
    assert_eq!(config.state_dir, Path::new("/var/lib/nixfleet"));
    assert_eq!((config.poll, config.reboots), (Duration::from_mins(1), Reboots::AsReleased));
    assert_eq!(config.server, ServerChoice::Host);
}

#[test]
fn all_faults_are_told_at_once_with_their_places() {
    let text = "chanel = \"stable\"\n  poll = \"fast\"\nhost = 7\nsource = \"ftp://x\"\npins = \"sha256//x\"\n\
                [tls]\nca = \"x\"\n";
    let expected = [
        "f:1:1: there is no key `chanel`; did you mean `channel`?",
        "f:2:10: `poll`: `fast` is not a time; write 60s or 5m",
        "f:3:8: `host` is a text, and here is a number; write host = \"web-1\"",
        "f:4:10: `source`: it has another scheme; write https://HOST/FOLDER, http://HOST/FOLDER, control-plane+https://HOST, file:///FOLDER or \
         /FOLDER",
        "f:5:8: `pins` is a list of texts, and here is one text; write pins = [\"sha256//…\"]",
        "f:6:2: there is no key `tls`; there are root, source, channel, host, host-key, state-dir, poll, ca-file, pins, \
         reboot",
        "`channel` is missing: write channel = \"stable\" or give --channel",
    ];
    assert_eq!(faults(text, &none()), expected);
}

#[test]
fn a_text_that_is_not_toml_is_told_with_its_place_and_not_as_missing() {
    let said = faults("source = \"/srv\nchannel = stable\n", &none());
    assert!(said.iter().all(|fault| fault.contains("this is not TOML")), "{said:?}");
    assert!(said[0].starts_with("f:1:"), "{said:?}");
    assert!(said.iter().any(|fault| fault.starts_with("f:2:")), "{said:?}");
    assert!(faults("channel = 'a'\nchannel = 'b'\nsource = '/s'", &none())[0].contains("not TOML"));
}

#[test]
fn flags_win_and_have_the_same_faults() {
    let flags = |pairs: &[(Key, &str)]| {
        Written::from_flags(pairs.iter().map(|(key, text)| (*key, vec![(*text).to_owned()])))
    };
    let config = loaded(FULL, &flags(&[(Key::Channel, "edge"), (Key::Poll, "10s")])).expect("sound");
    assert_eq!((config.channel.as_str(), config.poll), ("edge", Duration::from_secs(10)));
    let pin = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let config =
        loaded(FULL, &flags(&[(Key::Pins, pin)])).expect("it takes the place of the file of authorities");
    assert!(matches!(config.server, ServerChoice::Pins(_)));
    let said = faults(FULL, &flags(&[(Key::Host, "Web 1"), (Key::Reboot, "maybe")]));
    assert_eq!(said.len(), 2);
    assert!(said[0].starts_with("--host: `host`: `Web 1` is not a host name"), "{said:?}");
    assert!(said[1].starts_with("--reboot: `reboot`: `maybe` is neither"), "{said:?}");
}

#[test]
fn what_excludes_each_other_or_does_nothing_is_told() {
    let pins = "pins = ['sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=']\n";
    let said = faults(&format!("{FULL}{pins}"), &none());
    assert_eq!(said, ["`ca-file` and `pins` exclude each other: a pinned key counts alone"]);
    let said = faults(&format!("source = 'http://x'\nchannel = 'a'\n{pins}"), &none());
    assert_eq!(said, ["`pins` does nothing: the source is not an https address"]);
}

#[test]
fn a_kernel_name_that_is_no_name_is_told_only_if_it_is_needed() {
    let flags = Written::from_flags([
        (Key::Source, vec!["/srv".to_owned()]),
        (Key::Channel, vec!["stable".to_owned()]),
    ]);
    let refused = load(&ConfigFile::Usual, &flags, "(none)");
    assert!(matches!(&refused, Err(ConfigRefused::Faults(_, faults)) if faults.len() == 1), "{refused:?}");
    assert!(loaded("host = 'a'", &flags).is_ok());
}

#[test]
fn a_file_that_others_can_write_is_refused_with_the_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("agent.toml");
    fs::write_atomic(&path, FULL.as_bytes()).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).expect("set");
    let file = ConfigFile::Named(path);
    let refused = load(&file, &none(), "x").expect_err("its group can write it");
    assert!(refused.hint().contains("chmod go-w"), "{refused}");
    assert!(state_dir_in(&file).is_err(), "nor is its state folder believed");
}

#[test]
fn a_named_file_must_be_there_and_must_be_text() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("agent.toml");
    assert!(matches!(load(&ConfigFile::Named(path.clone()), &none(), "x"), Err(ConfigRefused::File(_))));
    fs::write_atomic(&path, b"host = \"\xff\"").expect("written");
    assert!(matches!(load(&ConfigFile::Named(path), &none(), "x"), Err(ConfigRefused::NotText(_))));
}

#[test]
fn the_state_folder_is_found_in_a_file_that_has_other_faults() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("agent.toml");
    fs::write_atomic(&path, b"state-dir = '/persist/n'\nchanel = 'x'\n").expect("written");
    let found = state_dir_in(&ConfigFile::Named(path)).expect("readable");
    assert_eq!(found.as_deref(), Some(Path::new("/persist/n")));
}

#[test]
fn every_key_has_an_example_that_is_read_and_a_name_that_is_found_by_its_typing_mistakes() {
    for key in Key::ALL {
        let (written, faults) = written::read(key.example());
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(written.keys().collect::<Vec<_>>(), [key]);
        assert_eq!(Key::like(&key.name().replace('-', "_").to_uppercase()), Some(key));
        let cut = &key.name()[..key.name().len() - 1];
        assert_eq!(Key::like(cut), Some(key), "{cut}");
        assert!(matches!(key.shape(), Shape::Text | Shape::Texts));
    }
    assert_eq!(Key::like("zzz"), None);
}

/// Also what the fuzzer runs.
fn anything(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (written, faults) = written::read(&text);
    let (parsed, more) = parse(&written);
    for fault in faults.iter().chain(&more) {
        let said = fault.shown(Path::new("f"));
        assert!(!said.contains('\n') && !said.contains('\u{1b}'), "{said:?}");
        let At::File(place) = fault.at else { panic!("{fault:?}") };
        assert!(place.line <= text.matches('\n').count() + 1);
    }
    let (config, missing) = resolve(parsed, "x");
    assert!(config.is_some() || !missing.is_empty());
}

#[test]
fn the_corpus_of_configurations_is_read_without_a_panic() {
    crate::tools::tests::replay("config", anything);
}

proptest! {
    #[test]
    fn noise_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        anything(&bytes);
    }

    #[test]
    fn a_configuration_with_any_line_taken_out_is_sound_or_says_what_is_missing(line in 1usize..10) {
        let lines: Vec<&str> = FULL.lines().collect();
        let without: Vec<&str> = lines.iter().enumerate().filter(|(at, _)| *at != line).map(|(_, l)| *l).collect();
        let needed = lines[line].starts_with("source") || lines[line].starts_with("channel");
        match loaded(&without.join("\n"), &none()) {
            Ok(_) => prop_assert!(!needed),
            Err(ConfigRefused::Faults(_, faults)) => {
                prop_assert!(needed && matches!(faults[..], [Fault { what: What::Missing(_), .. }]), "{faults:?}");
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}

#[test]
fn a_file_that_is_not_there_yet_is_waited_for_and_one_that_means_nothing_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("agent.toml");
    let refused = || load(&ConfigFile::Named(file.clone()), &none(), "web-1");
    assert!(!refused().expect_err("it is not there").is_lasting());
    fs::write_atomic(&file, b"source = 7").expect("written");
    assert!(refused().expect_err("it says nothing").is_lasting());
    let config = |key: &std::path::Path| {
        let text = format!("source = \"/srv\"\nchannel = \"stable\"\nhost-key = \"{}\"\n", key.display());
        fs::write_atomic(&file, text.as_bytes()).expect("written");
        load(&ConfigFile::Named(file.clone()), &none(), "web-1").expect("it is whole")
    };
    let key = dir.path().join("key.pub");
    let no_key = config(&key).identity().expect_err("no key");
    fs::write_atomic(&key, b"").expect("written");
    let empty = config(&key).identity().expect_err("no key in it");
    assert!(!no_key.is_lasting() && !empty.is_lasting(), "the SSH server is about to make it");
}
