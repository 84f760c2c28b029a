use std::os::unix::fs::PermissionsExt;

use nixfleet_sys::fs;

use super::*;
use crate::config::ready::NotReady;
use crate::tools::nix::{NixSettings, TrustedKey};

fn problems(findings: &[Finding]) -> Vec<&str> {
    let bad = findings.iter().filter(|finding| finding.grade == Grade::Problem);
    bad.map(|finding| finding.what.as_str()).collect()
}

#[test]
fn settings_of_nix_that_let_anything_in_or_nothing_are_problems_and_all_are_told() {
    let good = NixSettings {
        substituters: vec!["https://cache.example".into()],
        trusted_keys: vec![TrustedKey { name: "cache.example-1".into(), base64: "AAAA".into() }],
        require_sigs: true,
        system: "x86_64-linux".into(),
        extra_platforms: Vec::new(),
    };
    let findings = host::nix_settings(&good);
    assert!(is_good(&findings) && findings.len() == 1, "{findings:?}");
    assert!(findings[0].what.contains("cache.example-1"));
    let bad = NixSettings { require_sigs: false, trusted_keys: vec![], substituters: vec![], ..good };
    assert_eq!(problems(&host::nix_settings(&bad)).len(), 3);
}

#[test]
fn each_cache_says_whether_it_answers_and_one_that_lacks_a_path_does() {
    let url = "s3://cache?region=eu-west-1";
    for answer in [true, false] {
        assert_eq!(host::cache(url, Some(Ok(answer))).grade, Grade::Good);
    }
    for silence in [Some(Err("AccessDenied".to_owned())), None] {
        let finding = host::cache(url, silence);
        assert_eq!(finding.grade, Grade::Warning, "another cache may have it");
        assert!(finding.what.starts_with(url) && finding.fix.is_some_and(|fix| fix.contains("AWS_*")));
    }
}

#[test]
fn whatever_is_not_good_says_what_to_do() {
    let bad = NixSettings { require_sigs: false, ..NixSettings::default() };
    let findings = host::nix_settings(&bad);
    assert!(!findings.is_empty());
    assert!(findings.iter().all(|finding| finding.fix.is_some()));
}

#[test]
fn a_state_folder_that_others_can_write_is_a_problem_and_one_that_is_not_there_is_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("state");
    let about_writers =
        |findings: &[Finding]| problems(findings).iter().any(|what| what.contains("by others"));
    assert!(!about_writers(&host::state(&folder)));
    fs::make_dir(&folder).expect("made");
    assert!(!about_writers(&host::state(&folder)));
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o770)).expect("set");
    assert!(about_writers(&host::state(&folder)));
    let file = dir.path().join("file");
    fs::write_atomic(&file, b"x").expect("written");
    assert!(problems(&host::state(&file)).iter().any(|what| what.contains("not a folder")));
}

#[test]
fn a_state_folder_in_memory_is_a_problem() {
    let memory = std::path::Path::new("/dev/shm");
    if !fs::is_in_memory(memory) {
        return;
    }
    let findings = host::state(&memory.join("nixfleet-check/of/a/test"));
    assert!(problems(&findings).iter().any(|what| what.contains("in memory")), "{findings:?}");
}

#[test]
fn a_configuration_in_a_folder_of_others_can_be_replaced() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("agent.toml");
    assert_eq!(host::folder_of(&file), None);
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).expect("set");
    assert_eq!(host::folder_of(&file).map(|finding| finding.grade), Some(Grade::Problem));
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o1777)).expect("set");
    assert_eq!(host::folder_of(&file), None, "nobody can replace what is root's there");
}

#[test]
fn a_private_half_that_is_not_there_is_a_problem_of_the_key_and_not_of_the_authorities() {
    let key = std::path::Path::new("/etc/ssh/ssh_host_ed25519_key.pub");
    let cannot_read = |path: &str| {
        let source = std::io::ErrorKind::NotFound.into();
        let error = fs::FsError { action: "read", path: path.into(), source };
        trust::not_ready(&NotReady::File(error), key)
    };
    let private = cannot_read("/etc/ssh/ssh_host_ed25519_key");
    assert_eq!((private.about, private.grade), (About::HostKey, Grade::Problem));
    assert!(private.fix.is_some_and(|fix| fix.contains("both halves")));
    assert_eq!(cannot_read("/etc/nixfleet/ca.pem").about, About::Source);
    assert_eq!(cannot_read("/etc/ssh/ssh_host_ed25519_key.pub").grade, Grade::Warning, "told with the key");
}

/// The finding of `look` for a file with these permissions.
fn found(mode: u32, look: impl FnOnce(&Path) -> Option<Finding>) -> Option<Finding> {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("secret");
    fs::write_atomic(&file, b"x").expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("set");
    look(&file)
}

#[test]
fn a_private_key_or_an_environment_that_others_can_read_is_a_problem_and_says_how_to_mend_it() {
    for mode in [0o640, 0o604, 0o644, 0o660] {
        let key = found(mode, trust::private_half).expect("told");
        assert_eq!((key.about, key.grade), (About::HostKey, Grade::Problem), "{mode:o}");
        let environment = found(mode, host::environment).expect("told");
        assert_eq!((environment.about, environment.grade), (About::Config, Grade::Problem), "{mode:o}");
        for finding in [key, environment] {
            assert!(finding.fix.is_some_and(|fix| fix.contains("chmod 0600 ")), "{mode:o}");
        }
    }
    let written = found(0o620, host::environment).expect("told");
    assert!(written.what.contains("can write it"), "it begins what runs as root: {written:?}");
    for mode in [0o600, 0o400] {
        assert_eq!(found(mode, trust::private_half), None, "{mode:o}");
        assert_eq!(found(mode, host::environment), None, "{mode:o}");
    }
    let missing = Path::new("/etc/nixfleet/of/a/test");
    assert_eq!((trust::private_half(missing), host::environment(missing)), (None, None), "others tell that");
}
