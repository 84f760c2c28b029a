use super::*;
use crate::tools::tests::{NIX, recorded, recorded_exit, replay, tools};
use nixfleet_sys::exec::Listener;
use proptest::prelude::*;

fn words(name: &str) -> NixWords {
    let mut listener = NixListener::new(|_| ());
    for line in recorded(name, "stderr").lines() {
        listener.line(line.as_bytes());
    }
    listener.into_words()
}

/// The names without hashes, since each version built its own.
fn names(paths: &[StorePath]) -> Vec<&str> {
    let mut names: Vec<_> = paths.iter().map(StorePath::name).collect();
    names.sort_unstable();
    names
}

fn path() -> StorePath {
    "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a".parse().expect("well-formed")
}

#[test]
fn a_realisation_never_builds_and_never_believes_the_negative_cache() {
    let cmd = realise(&tools(), &path());
    let line = cmd.line();
    assert_eq!(
        line,
        "/tools/nix-store --realise /nix/store/0123456789abcdfghijklmnpqrsvwxyz-a --option narinfo-cache-negative-ttl \
         0 --option max-jobs 0 --option builders '' --log-format internal-json"
    );
}

#[test]
fn plans_are_read_from_both_versions() {
    for version in NIX {
        let plan = |case: &str| {
            let name = format!("nix-store-{version}-dry-run-{case}");
            assert_eq!(recorded_exit(&name), 0);
            parse_dry_run(&recorded(&name, "stderr")).expect(&name)
        };
        assert_eq!(names(&plan("one").paths), ["dep"]);
        assert_eq!(names(&plan("two").paths), ["dep", "good"]);
        assert_eq!(names(&plan("mixed").paths), ["dep", "good"]);
        assert_eq!(names(&plan("mixed").unknown), ["nowhere"]);
        assert_eq!(names(&plan("unknown").unknown), ["nowhere"]);
        assert_eq!(names(&plan("no-cache").unknown), ["good"], "warnings come before");
        assert_eq!(names(&plan("unsigned").paths), ["dep", "unsigned"], "a plan does not ask for signatures");
        assert_eq!(plan("nothing"), FetchPlan::default());
    }
}

#[test]
fn sizes_are_whole_numbers_of_any_unit() {
    let heading = "these 2 paths will be fetched (1.50 MiB download, 2.0 KiB unpacked):\n";
    let plan = parse_dry_run(heading).expect("a heading");
    assert_eq!((plan.download_bytes, plan.unpacked_bytes), (1_572_864, 2_048));
    assert_eq!(bytes("0.00 MiB"), Some(0));
    assert_eq!(bytes("16777216 TiB"), None, "more than 64 bits");
    for bad in ["", "1.5", "1.5 MB", "-1 MiB", "1. MiB", ".5 MiB", "1e3 MiB", "1.5  MiB", "x MiB"] {
        assert_eq!(bytes(bad), None, "{bad}");
    }
    let unclear = "this path will be fetched (some download, 1 MiB unpacked):";
    assert!(parse_dry_run(unclear).is_err());
    assert!(parse_dry_run("  /nix/store/0123456789abcdfghijklmnpqrsvwxyz-a").is_err(), "no heading");
    assert!(parse_dry_run("don't know how to build these paths:\n  /nix/store/short-a").is_err());
}

#[test]
fn every_row_of_the_trust_table_is_known_by_its_text() {
    type Is = fn(&Complaint) -> bool;
    let not_signed: Is = |c| matches!(c, Complaint::NotSigned(Some(_)));
    let altered: Is = |c| matches!(c, Complaint::NotAsAnnounced(Some(_)));
    let incomplete: Is = |c| matches!(c, Complaint::Incomplete(_));
    let unknown: Is = |c| matches!(c, Complaint::NotInAnyCache(Some(_)));
    let rows: [(&str, Is); 8] = [
        ("unsigned", not_signed),
        ("otherkey", not_signed),
        ("samename", not_signed),
        ("altinfo", not_signed),
        ("tampered", altered),
        ("truncated", incomplete),
        ("gone", incomplete),
        ("nowhere", unknown),
    ];
    for version in NIX {
        for (case, is) in rows {
            for way in ["", "-file"] {
                let name = format!("nix-store-{version}-realise-{case}{way}");
                assert_eq!(recorded_exit(&name), 1, "{name}");
                let found = complaints(&words(&name));
                assert!(found.len() == 1 && is(&found[0]), "{name}: {found:?}");
            }
        }
        let found = complaints(&words(&format!("nix-store-{version}-realise-badkey")));
        assert_eq!(found, [Complaint::BadKey], "{version}");
        let found = complaints(&words(&format!("nix-store-{version}-realise-cache-down")));
        assert_eq!(found[0], Complaint::CacheUnreachable, "{version}");
        assert!(unknown(&found[1]) && found.len() == 2, "{version}: {found:?}");
        for case in ["good", "present", "late-there"] {
            let name = format!("nix-store-{version}-realise-{case}");
            assert_eq!((recorded_exit(&name), words(&name)), (0, NixWords::default()), "{name}");
        }
    }
}

#[test]
fn texts_of_versions_that_could_not_be_run_are_known_as_well() {
    let path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a";
    for text in [
        format!("substituter 'S' does not have a valid signature for path '{path}'"),
        format!("cannot add path '{path}' because it lacks a valid signature"),
        format!("cannot add path '{path}' because it lacks a signature by a trusted key"),
    ] {
        assert!(matches!(complaint(&text), Some(Complaint::NotSigned(Some(_)))), "{text}");
    }
    assert_eq!(complaint("public key is not valid"), Some(Complaint::BadKey));
    assert_eq!(complaint("writing to file: No space left on device"), Some(Complaint::DiskFull));
    // What SQLite says of a database that cannot grow, here Nix' own memory of caches (2.26.3).
    let of_cache = "executing SQLite statement '': database or disk is full, database or disk is full (in '/root/.cache')";
    assert_eq!(complaint(of_cache), Some(Complaint::DiskFull));
    assert_eq!(complaint("error: build of 'x' failed"), None);
}

#[test]
fn questions_are_answered_in_order_and_in_full() {
    for version in NIX {
        let out = |case: &str| recorded(&format!("nix-store-{version}-{case}"), "stdout");
        assert_eq!(names(&parse_paths(&out("requisites")).expect("paths")), ["dep", "good"]);
        assert_eq!(names(&parse_paths(&out("references")).expect("paths")), ["dep"]);
        assert_eq!(names(&parse_paths(&out("invalid")).expect("paths")), ["unsigned"]);
        assert!(parse_paths(&out("invalid-none")).expect("nothing").is_empty());
        assert_eq!(parse_sizes(&out("size"), 2).expect("sizes"), [128, 176]);
        let hashes = parse_hashes(&out("hash"), 2).expect("hashes");
        assert_eq!(hashes[0].to_string(), "sha256:13w19wwvpfqyfq1fixzqjphj7dil4vlv9gada02f9kpl04qnmkw4");
        assert!(parse_hashes(&out("hash-invalid"), 2).is_err(), "one of two");
    }
}

#[test]
fn the_corpus_is_read_to_its_end() {
    replay("dry-run", |bytes| drop(parse_dry_run(&String::from_utf8_lossy(bytes))));
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in any::<String>(), path in 0_usize..3) {
        let _ = parse_dry_run(&text);
        let _ = parse_dry_run(&format!("this path will be fetched ({text} download, {text} unpacked):\n  /nix/store/{text}"));
        let _ = (parse_hashes(&text, path), parse_sizes(&text, path), parse_paths(&text), complaint(&text));
    }
}
