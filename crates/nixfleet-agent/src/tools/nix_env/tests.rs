use super::*;
use crate::tools::tests::{NIX, recorded, recorded_exit, tools};
use std::os::unix::fs::symlink;

fn system(letter: char) -> StorePath {
    format!("/nix/store/{}-system", letter.to_string().repeat(32)).parse().expect("well-formed")
}

fn profile() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let profile = dir.path().join("system");
    (dir, profile)
}

fn link(profile: &Path, file: &str, target: impl AsRef<Path>) {
    symlink(target, profile.with_file_name(file)).expect("a link");
}

#[test]
fn set_names_the_profile_and_the_path() {
    let line = set(&tools(), Path::new("/nix/var/nix/profiles/system"), &system('a')).line();
    assert_eq!(line, format!("/tools/nix-env --profile /nix/var/nix/profiles/system --set {}", system('a')));
}

#[test]
fn set_fails_loudly_without_the_path_or_the_folder() {
    for version in NIX {
        assert_eq!(recorded_exit(&format!("nix-env-{version}-set")), 0);
        let unknown = format!("nix-env-{version}-set-unknown");
        assert_eq!(recorded_exit(&unknown), 1);
        assert!(recorded(&unknown, "stderr").contains("don't know how to build"), "it tries to fetch");
        assert_eq!(
            recorded_exit(&format!("nix-env-{version}-set-no-folder")),
            1,
            "it does not make the folder"
        );
    }
}

#[test]
fn generations_are_read_in_the_order_of_their_numbers() {
    let (_dir, profile) = profile();
    for (number, letter) in [(10, 'a'), (9, 'b'), (2, 'a')] {
        link(&profile, &format!("system-{number}-link"), system(letter).as_path());
    }
    link(&profile, "system", "system-9-link");
    link(&profile, "system-odd-link", system('c').as_path());
    link(&profile, "system-03-link", system('c').as_path());
    link(&profile, "system-11-link", "/etc/passwd");
    link(&profile, "per-user-1-link", system('c').as_path());
    let found = read_generations(&profile).expect("readable");
    assert_eq!(found.all.iter().map(|one| one.number).collect::<Vec<_>>(), [2, 9, 10]);
    assert_eq!(found.current, Some(Generation { number: 9, system: system('b') }));
    assert_eq!(found.odd, [profile.with_file_name("system-11-link")]);
}

#[test]
fn a_host_without_a_profile_has_no_generations() {
    let (dir, profile) = profile();
    assert_eq!(read_generations(&profile).expect("an empty folder"), Generations::default());
    let absent = dir.path().join("absent/system");
    assert_eq!(read_generations(&absent).expect("no folder"), Generations::default());
}

#[test]
fn a_profile_that_points_elsewhere_is_an_error_and_not_a_guess() {
    for target in [
        "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-system",
        "system-7-link",
        "/elsewhere/system-1-link",
        "..",
    ] {
        let (_dir, profile) = profile();
        link(&profile, "system-1-link", system('a').as_path());
        link(&profile, "system", target);
        assert!(matches!(read_generations(&profile), Err(ProfileError::NoGeneration { .. })), "{target}");
    }
}

#[test]
fn an_absolute_link_beside_the_profile_is_a_generation() {
    let (dir, profile) = profile();
    link(&profile, "system-1-link", system('a').as_path());
    link(&profile, "system", dir.path().join("system-1-link"));
    assert_eq!(read_generations(&profile).expect("readable").current.map(|one| one.number), Some(1));
}
