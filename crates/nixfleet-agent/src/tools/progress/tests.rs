use super::*;
use crate::tools::tests::{NIX, recorded, replay};
use proptest::prelude::*;

fn hear(text: &[u8]) -> (Vec<Progress>, NixWords, usize) {
    let mut told = Vec::new();
    let mut moved = 0;
    let mut listener = NixListener::new(|progress| told.push(progress));
    for line in text.split(|b| *b == b'\n') {
        moved += usize::from(listener.line(line) == Heard::Progress);
        let _ = listener.is_word(line);
    }
    let words = listener.into_words();
    (told, words, moved)
}

#[test]
fn a_download_grows_to_its_end_by_http_and_by_file() {
    for version in NIX {
        for way in ["http", "file"] {
            let (told, words, moved) =
                hear(recorded(&format!("nix-store-{version}-realise-big-{way}"), "stderr").as_bytes());
            let end = told.last().expect("there was progress");
            let whole = Progress {
                bytes_done: 5_000_440,
                bytes_expected: 5_000_440,
                paths_done: 3,
                paths_expected: 3,
            };
            assert_eq!(*end, whole, "{version} {way}");
            assert!(told.len() > 20 && moved > 20, "{version} {way}: {} {moved}", told.len());
            assert_eq!(words, NixWords::default(), "neither the plan nor the warning about roots is kept");
        }
    }
}

#[test]
fn repeated_numbers_are_no_progress() {
    let start = br#"@nix {"action":"start","id":7,"type":100,"fields":[]}"#;
    let same = br#"@nix {"action":"result","id":7,"type":105,"fields":[10,99,0,0]}"#;
    let mut listener = NixListener::new(|_| ());
    assert_eq!(listener.line(start), Heard::Words);
    assert_eq!(listener.line(same), Heard::Progress);
    assert_eq!(listener.line(same), Heard::Words);
    assert_eq!(
        listener.line(br#"@nix {"action":"result","id":8,"type":105,"fields":[10,99,0,0]}"#),
        Heard::Words
    );
}

#[test]
fn a_path_that_does_not_end_where_it_was_announced_to_is_enough() {
    let start =
        br#"@nix {"action":"start","id":7,"type":100,"fields":["/nix/store/x-endless","http://c","local"]}"#;
    let at = |done: u64| {
        format!("@nix {{\"action\":\"result\",\"id\":7,\"type\":105,\"fields\":[{done},512,0,0]}}")
            .into_bytes()
    };
    let mut listener = NixListener::new(|_| ());
    listener.line(start);
    assert_eq!(listener.line(&at(512)), Heard::Progress);
    // A little more may be a matter of counting; Nix itself refuses it at the end.
    assert_eq!(listener.line(&at(512 + (1 << 20))), Heard::Progress);
    assert_eq!(listener.line(&at(513 + (1 << 20))), Heard::Enough);
    let said = listener.into_words().text();
    assert_eq!(said, "/nix/store/x-endless: 1049089 bytes came, and 512 were announced");
}

#[test]
fn messages_lose_their_colour_and_broken_lines_are_words() {
    let text = b"@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"\\u001b[31;1merror:\\u001b[0m no\"}\n@nix {broken\nplain \x1b[1mwords";
    let (_, words, _) = hear(text);
    assert_eq!(words.text(), "error: no\n@nix {broken\nplain words");
    let listener = NixListener::new(|_| ());
    assert!(!listener.is_word(br#"@nix {"action":"stop","id":1}"#));
    assert!(listener.is_word(b"@nix {broken"));
}

#[test]
fn the_corpus_is_heard_to_its_end() {
    replay("realise-progress", |bytes| drop(hear(bytes)));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = parse_line(&bytes);
        let _ = parse_line(&[b"@nix ".as_slice(), &bytes].concat());
    }

    #[test]
    fn totals_only_grow_and_never_pass_what_is_expected(
        events in prop::collection::vec((0_u64..4, 0_u64..6, any::<u64>(), any::<u64>()), 0..200)
    ) {
        let mut last = Progress::default();
        let mut lines = String::new();
        for (what, id, a, b) in events {
            let kind = 100 + id % 4;
            let line = match what {
                0 => format!("@nix {{\"action\":\"start\",\"id\":{id},\"type\":{kind}}}\n"),
                1 => format!("@nix {{\"action\":\"stop\",\"id\":{id}}}\n"),
                2 => format!("@nix {{\"action\":\"result\",\"id\":{id},\"type\":105,\"fields\":[{a},{b},0,0]}}\n"),
                _ => format!("@nix {{\"action\":\"result\",\"id\":{id},\"type\":106,\"fields\":[100,{a}]}}\n"),
            };
            lines.push_str(&line);
        }
        for now in hear(lines.as_bytes()).0 {
            prop_assert!(now.bytes_done >= last.bytes_done && now.bytes_expected >= last.bytes_expected);
            prop_assert!(now.paths_done >= last.paths_done && now.paths_expected >= last.paths_expected);
            prop_assert!(now.bytes_done <= now.bytes_expected);
            last = now;
        }
    }
}

proptest! {
    // Each takes up to two megabytes, which a busy machine hears slowly.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_kept_is_bounded(count in 0_usize..600, len in 0_usize..4_000) {
        let line = format!("{}\n", "x".repeat(len));
        let (_, words, _) = hear(line.repeat(count).as_bytes());
        prop_assert!(words.messages.len() <= MESSAGES_MAX);
        prop_assert!(words.messages.iter().all(|text| text.len() <= MESSAGE_BYTES_MAX));
    }
}
