use super::*;

/// The recorded output `tests/fixtures/tools/NAME.STREAM`; a stream that was empty has no file.
pub(crate) fn recorded(name: &str, stream: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tools");
    let exit = folder.join(format!("{name}.exit"));
    assert!(exit.exists(), "nothing is recorded as `{name}`");
    let bytes = std::fs::read(folder.join(format!("{name}.{stream}"))).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The exit code of a recorded run.
pub(crate) fn recorded_exit(name: &str) -> i32 {
    recorded(name, "exit").trim().parse().expect("a recorded exit code is a number")
}

/// Tools by names that are no real ones: for looking at commands.
pub(crate) fn tools() -> Tools {
    let at = |name: &str| Path::new("/tools").join(name);
    Tools {
        nix_store: at("nix-store"),
        nix_env: at("nix-env"),
        nix: at("nix"),
        systemctl: at("systemctl"),
        systemd_run: at("systemd-run"),
        journalctl: at("journalctl"),
        busctl: at("busctl"),
        search: Vec::new(),
        manager: at("systemd-private"),
        nix_options: Vec::new(),
    }
}

/// Both versions of Nix that outputs were recorded from.
pub(crate) const NIX: [&str; 2] = ["2.8.0", "2.26.3"];
/// Both versions of systemd.
pub(crate) const SYSTEMD: [&str; 2] = ["252", "257"];

/// Replays every file of `fuzz-corpus/NAME`, and checks that there are some.
pub(crate) fn replay(name: &str, mut parse: impl FnMut(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus").join(name);
    let mut replayed = 0;
    for entry in folder.read_dir().expect("the corpus is part of the repository") {
        parse(&std::fs::read(entry.expect("readable").path()).expect("readable"));
        replayed += 1;
    }
    assert!(replayed >= 5, "the corpus `{name}` has {replayed} files");
}

fn program(folder: &Path, name: &str, mode: u32) {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::OpenOptions::new().create(true).write(true).mode(mode).open(folder.join(name)).expect("a file");
}

const ALL: [&str; 7] = ["nix-store", "nix-env", "nix", "systemctl", "systemd-run", "journalctl", "busctl"];

#[test]
fn tools_are_taken_from_the_first_folder_that_has_them_and_keep_their_names() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().canonicalize().expect("it exists");
    let (store, usr, current) = (root.join("store"), root.join("usr"), root.join("current"));
    for name in ALL {
        program(&usr, name, 0o755);
    }
    program(&store, "nix", 0o755);
    program(&store, "systemctl", 0o644);
    std::os::unix::fs::symlink("nix", store.join("nix-store")).expect("a link");
    std::os::unix::fs::symlink(&store, &current).expect("a link");

    let tools = Tools::find(&[&root.join("absent"), &current, &usr]).expect("all are there");
    assert_eq!(tools.nix_store, store.join("nix-store"), "the folder is resolved and the name is not");
    assert_eq!(tools.nix_env, usr.join("nix-env"));
    assert_eq!(tools.systemctl, usr.join("systemctl"), "a file that cannot be executed is no tool");
}

#[test]
fn tools_whose_system_was_collected_are_found_in_the_running_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().canonicalize().expect("it exists");
    let (old, new, current) = (root.join("old"), root.join("new"), root.join("current"));
    for (folder, name) in [&old, &new].into_iter().flat_map(|folder| ALL.map(|name| (folder, name))) {
        program(folder, name, 0o755);
    }
    let leads_to = |folder: &Path| nixfleet_sys::fs::link_atomic(folder, &current).expect("linked");
    leads_to(&old);
    let tools = Tools::find(&[&current]).expect("all are there");
    leads_to(&new);
    assert_eq!(tools.here(&tools.nix_env), old.join("nix-env"), "those that are there are used");
    std::fs::remove_dir_all(&old).expect("collected");
    assert_eq!(tools.here(&tools.nix_env), new.join("nix-env"));
    std::fs::remove_file(&current).expect("a switch");
    assert_eq!(tools.here(&tools.nix_env), old.join("nix-env"), "nowhere: the start says so");
    leads_to(&new);
    assert!(tools.command(&tools.systemctl).line().starts_with(&new.join("systemctl").display().to_string()));
}

#[test]
fn all_missing_tools_are_named_at_once_with_where_and_what_to_install() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["nix-store", "nix-env", "journalctl", "busctl"] {
        program(dir.path(), name, 0o755);
    }
    let missing = Tools::find(&[dir.path(), Path::new("/nowhere")]).expect_err("three are missing");
    assert_eq!(missing.names, ["nix", "systemctl", "systemd-run"]);
    let said = missing.to_string();
    assert!(said.starts_with("cannot find nix, systemctl, systemd-run in /"), "{said}");
    assert!(said.ends_with(", /nowhere"), "{said}");
    assert!(missing.hint().contains("Nix") && missing.hint().contains("systemd"));
}

#[test]
fn nix_is_handed_what_private_caches_ask_for_and_nothing_that_changes_what_it_does() {
    for key in ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_SHARED_CREDENTIALS_FILE", "NIX_SSHOPTS"] {
        assert!(is_credential(key.as_ref()), "{key}");
    }
    for key in ["NIX_REMOTE", "NIX_CONFIG", "NIX_STORE_DIR", "LD_PRELOAD", "MY_AWS_KEY"] {
        assert!(!is_credential(key.as_ref()) && !ENVIRONMENT_KEPT.contains(&key), "{key}");
    }
    assert!(ENVIRONMENT_KEPT.contains(&"all_proxy") && ENVIRONMENT_KEPT.contains(&"ALL_PROXY"));
}

#[test]
fn settings_come_after_the_sub_command() {
    let tools = tools().with_nix_option("substituters", "http://cache.example");
    let path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a".parse().expect("well-formed");
    let line = nix_store::dry_run(&tools, &path, std::time::Duration::from_mins(5)).line();
    assert!(line.ends_with("--option substituters http://cache.example"), "{line}");
}
