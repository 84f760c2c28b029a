use super::*;
use crate::tools::tests::{NIX, recorded, recorded_exit, replay, tools};
use nixfleet_core::nix::path_info::PathSignature;
use nixfleet_sys::exec::Listener;
use proptest::prelude::*;

const PATH: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a";
const HASH: &str = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";

fn infos(case: &str) -> PathInfos {
    assert_eq!(recorded_exit(case), 0, "{case}");
    parse_path_info(recorded(case, "stdout").as_bytes()).expect(case)
}

fn judged(case: &str) -> Option<Verified> {
    let mut listener = NixListener::new(|_| ());
    for line in recorded(case, "stderr").lines() {
        listener.line(line.as_bytes());
    }
    verdict(Ended::Exited(recorded_exit(case)), &listener.into_words()).expect(case)
}

fn names(paths: &[StorePath]) -> Vec<&str> {
    let mut names: Vec<_> = paths.iter().map(StorePath::name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_verification_asks_for_a_signature_even_of_what_was_built_here() {
    let cmd = verify(&tools(), &[PATH.parse().expect("well-formed")], Reach::Closures, None);
    let line = cmd.line();
    assert_eq!(
        line,
        format!(
            "/tools/nix --extra-experimental-features nix-command store verify --no-contents --sigs-needed 1 \
             --recursive --log-format internal-json {PATH}"
        )
    );
}

#[test]
fn what_a_cache_says_is_read_from_both_versions() {
    for version in NIX {
        let found = infos(&format!("nix-{version}-path-info-cache"));
        assert_eq!((found.known.len(), found.missing.len()), (2, 0));
        let good = found.known.iter().find(|info| info.path.name() == "good").expect("it was asked for");
        assert_eq!((good.nar_size, good.download_size), (176, Some(176)));
        assert_eq!(good.signatures.len(), 1);
        let PathSignature { key, base64 } = &good.signatures[0];
        assert_eq!((key.as_str(), base64.len()), ("fleet-1", 88));
        assert_eq!(names(&good.references), ["dep"]);
        assert_eq!((good.ultimate, good.content_address.as_deref()), (false, None));

        let dep = found.known.iter().find(|info| info.path.name() == "dep").expect("it is referred to");
        assert_eq!(dep.nar_hash.to_string(), "sha256:13w19wwvpfqyfq1fixzqjphj7dil4vlv9gada02f9kpl04qnmkw4");

        let unsigned = infos(&format!("nix-{version}-path-info-cache-unsigned"));
        assert!(unsigned.known[0].signatures.is_empty());
    }
}

#[test]
fn what_is_missing_is_said_and_is_no_error() {
    for version in NIX {
        let some = infos(&format!("nix-{version}-path-info-cache-missing"));
        assert_eq!(names(&some.missing), ["nowhere"]);
        assert_eq!(some.known.len(), 1);
        let none = infos(&format!("nix-{version}-path-info-local-missing"));
        assert_eq!((none.known.len(), names(&none.missing)), (0, vec!["good"]));
    }
}

#[test]
fn what_was_built_here_and_what_is_named_by_its_contents_are_told_apart() {
    for version in NIX {
        let built = infos(&format!("nix-{version}-path-info-ultimate"));
        assert!(built.known[0].ultimate && built.known[0].download_size.is_none());
        let named = infos(&format!("nix-{version}-path-info-ca"));
        assert!(
            named.known[0].content_address.as_deref().is_some_and(|ca| ca.starts_with("fixed:r:sha256:"))
        );
    }
}

#[test]
fn the_shapes_of_versions_that_could_not_be_run_are_read_too() {
    let base = &PATH["/nix/store/".len()..];
    let structured = format!(
        r#"{{"version":2,"storeDir":"/nix/store","info":{{"{base}":{{"version":2,"narSize":1,"references":["{base}"],
        "narHash":{{"algorithm":"sha256","format":"base64","hash":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}},
        "ca":{{"method":"nar","hash":"x"}},"signatures":[{{"keyName":"fleet-1","sig":"x"}}],"storeDir":"/nix/store"}}}}}}"#
    );
    let null = format!(
        r#"{{"{PATH}":{{"narHash":"{HASH}","narSize":1,"references":["{PATH}"],"signatures":null,"ca":null,
        "ultimate":null,"downloadSize":null}}}}"#
    );
    for json in [structured, null] {
        let found = parse_path_info(json.as_bytes()).expect(&json);
        assert_eq!(found.known[0].path.as_str(), PATH);
        assert_eq!(found.known[0].nar_hash.to_string(), HASH);
        assert_eq!(names(&found.known[0].references), ["a"]);
        assert_eq!(found.known[0].fingerprint(), format!("1;{PATH};{HASH};1;{PATH}"));
    }
}

#[test]
fn a_shape_that_nobody_knows_is_refused() {
    for bad in [
        "",
        "null",
        "7",
        "[7]",
        "[{}]",
        r#"{"version":9,"info":{}}"#,
        r#"{"version":2,"storeDir":"/gnu/store","info":{}}"#,
        r#"{"/etc/passwd":null}"#,
        &format!(r#"{{"{PATH}":{{}}}}"#),
        &format!(r#"{{"{PATH}":{{"narHash":"{HASH}"}}}}"#),
        &format!(r#"{{"{PATH}":{{"narHash":"md5:x","narSize":1}}}}"#),
        &format!(r#"{{"{PATH}":{{"narHash":"{HASH}","narSize":-1}}}}"#),
        &format!(r#"{{"{PATH}":{{"narHash":"{HASH}","narSize":1,"references":["../x"]}}}}"#),
        &format!(r#"{{"{PATH}":{{"narHash":"{HASH}","narSize":1,"signatures":["nocolon"]}}}}"#),
        &format!(r#"{{"{PATH}":{{"narHash":"{HASH}","narSize":1,"ultimate":"yes"}}}}"#),
    ] {
        assert!(parse_path_info(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn a_verdict_needs_the_exit_bits_and_the_paths() {
    for version in NIX {
        let judge = |case: &str| judged(&format!("nix-{version}-verify-{case}"));
        assert_eq!(judge("trusted"), Some(Verified::Trusted));
        assert_eq!(judge("ca"), Some(Verified::Trusted), "named by its contents");
        let untrusted = |case: &str| match judge(case) {
            Some(Verified::Untrusted(paths)) => {
                paths.iter().map(|path| path.name().to_owned()).collect::<Vec<_>>()
            }
            other => panic!("{version} {case}: {other:?}"),
        };
        let mut nokey = untrusted("nokey");
        nokey.sort();
        assert_eq!(nokey, ["dep", "good"]);
        assert_eq!(untrusted("cache-unsigned"), ["unsigned"]);
        assert_eq!(untrusted("ultimate"), ["nowhere"], "built here is not signed");
        assert_eq!(judge("invalid"), None, "1 is also how any other error ends");
        assert_eq!(judge("badflag"), None);
    }
    let nothing = NixWords::default();
    assert_eq!(verdict(Ended::Exited(2), &nothing), Ok(None), "no path, no verdict");
    assert_eq!(verdict(Ended::Signalled(2), &nothing), Ok(None));
    let both = NixWords { corrupted: vec![PATH.into()], untrusted: vec![PATH.into()], ..NixWords::default() };
    assert!(matches!(verdict(Ended::Exited(7), &both), Ok(Some(Verified::Broken { incomplete: true, .. }))));
}

#[test]
fn settings_are_read_under_both_names() {
    for case in ["nix-2.8.0-show-config", "nix-2.26.3-config-show", "nix-2.26.3-show-config"] {
        assert_eq!(recorded_exit(case), 0);
        let found = parse_settings(recorded(case, "stdout").as_bytes()).expect(case);
        assert_eq!(found.system, "x86_64-linux");
        assert!(found.require_sigs && found.substituters.is_empty() && found.trusted_keys.is_empty());
    }
    assert!(recorded("nix-2.8.0-config-show", "stderr").contains("is not a recognised command"));
    let json = r#"{"substituters":{"value":["http://a"]},"trusted-public-keys":{"value":["k-1:abc"]},
        "require-sigs":{"value":false},"system":{"value":"s"},"extra-platforms":{"value":["i686-linux"]}}"#;
    let found = parse_settings(json.as_bytes()).expect("complete");
    assert_eq!(
        (found.trusted_keys, found.require_sigs),
        (vec![TrustedKey { name: "k-1".into(), base64: "abc".into() }], false)
    );
    assert!(parse_settings(json.replace("k-1:abc", "nonsense").as_bytes()).is_err());
    assert!(parse_settings(b"{}").is_err());
}

#[test]
fn the_corpus_is_read_to_its_end() {
    replay("path-info", |bytes| drop(parse_path_info(bytes)));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = (parse_path_info(&bytes), parse_settings(&bytes));
    }

    #[test]
    fn no_value_in_the_right_place_is_too_strange(key in "narHash|narSize|ca|references|signatures|ultimate|valid", value in "[0-9]{1,30}|null|true|\\[[0-9]\\]|\"[a-z:]{0,9}\"|\\{\\}") {
        let _ = parse_path_info(format!(r#"[{{"path":"{PATH}","narHash":"{HASH}","narSize":1,"{key}":{value}}}]"#).as_bytes());
    }
}
