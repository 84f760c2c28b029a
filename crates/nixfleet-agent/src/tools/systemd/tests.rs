use super::*;
use crate::tools::tests::{SYSTEMD, recorded, recorded_exit, tools};
use proptest::prelude::*;

fn unit() -> TransientUnit {
    let program = Path::new("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-s+1=2?/bin/switch-to-configuration");
    TransientUnit {
        name: "nixfleet-switch-a1b2.service".parse().expect("a name"),
        run: CommandLine::new(program).and_then(|line| line.arg("switch")).expect("plain"),
        on_end: Some(
            CommandLine::new(Path::new("/bin/nixfleet")).and_then(|line| line.arg("record")).expect("plain"),
        ),
        env: vec![("NIXOS_INSTALL_BOOTLOADER".to_owned(), "0".parse().expect("plain"))],
        run_at_most: Some(Duration::from_millis(90_500)),
        stop_within: Some(Duration::from_secs(5)),
        when_failed: WhenFailed::Forget,
    }
}

const BEGINNING: &str = "/tools/systemd-run --no-ask-password --quiet --service-type=exec \
    --unit=nixfleet-switch-a1b2.service --collect '--property=ExecStopPost=/bin/nixfleet record' \
    --property=RuntimeMaxSec=90.500s --property=TimeoutStopSec=5.000s \
    --setenv=NIXOS_INSTALL_BOOTLOADER=0";
const END: &str =
    "-- '/nix/store/0123456789abcdfghijklmnpqrsvwxyz-s+1=2?/bin/switch-to-configuration' switch";

#[test]
fn a_unit_says_its_limits_its_record_and_its_program() {
    assert_eq!(run_unit(&tools(), &unit()).line(), format!("{BEGINNING} {END}"));
}

#[test]
fn a_timer_counts_from_the_start_of_the_manager() {
    let line = run_unit_at(&tools(), &unit(), Duration::from_millis(61_234)).line();
    let timer = "--timer-property=OnStartupSec=61.234s --timer-property=AccuracySec=100ms";
    assert_eq!(line, format!("{BEGINNING} {timer} {END}"));
    assert!(!line.contains("--on-active"));
}

#[test]
fn a_limit_of_nothing_is_not_no_limit() {
    assert_eq!(seconds(Duration::ZERO), "0.001s");
}

#[test]
fn what_systemd_would_read_otherwise_cannot_be_built() {
    for bad in ["", "a b", "a;b", "$HOME", "%i", "a\"b", "a'b", "a\\b", "a\nb", "ä", "a\0"] {
        assert!(bad.parse::<Word>().is_err(), "{bad:?}");
        assert!(CommandLine::new(Path::new("/bin/x")).expect("plain").arg(bad).is_err(), "{bad:?}");
    }
    for bad in ["bin/x", "-/bin/x", "@/bin/x", "+/bin/x"] {
        assert!(CommandLine::new(Path::new(bad)).is_err(), "{bad}");
    }
}

#[test]
fn refusals_of_systemd_are_what_the_pipeline_expects() {
    for version in SYSTEMD {
        for case in ["ok", "four", "collect", "runs", "timer", "timer-past"] {
            assert_eq!(recorded_exit(&format!("systemd-run-{version}-{case}")), 0, "{version} {case}");
        }
        let taken = format!("systemd-run-{version}-taken");
        assert_eq!(recorded_exit(&taken), 1);
        assert!(recorded(&taken, "stderr").contains("was already loaded"));
        assert_eq!(recorded_exit(&format!("systemd-run-{version}-missing")), 1);
        for case in ["stop-missing", "reset-missing"] {
            let name = format!("systemctl-{version}-{case}");
            assert_ne!(recorded_exit(&name), 0);
            assert!(recorded(&name, "stderr").contains("not loaded"));
        }
    }
}

proptest! {
    #[test]
    fn a_word_has_nothing_that_systemd_expands(text in any::<String>()) {
        if let Ok(word) = text.parse::<Word>() {
            prop_assert!(!word.as_str().contains(|c: char| c.is_whitespace() || "$%;'\"\\".contains(c)));
        }
    }

    #[test]
    fn every_store_path_is_a_word(name in "[A-Za-z0-9+._?=-]{1,211}") {
        let path: StorePath = format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-{name}").parse().expect("well-formed");
        prop_assert_eq!(Word::from(&path), path.as_str().parse().expect("all its characters are plain"));
    }
}
