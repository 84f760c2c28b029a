use super::*;
use crate::tools::tests::{SYSTEMD, recorded, tools};
use proptest::prelude::*;

fn unit() -> UnitName {
    "n-four.service".parse().expect("a name")
}

#[test]
fn a_question_is_bounded_and_about_one_unit() {
    assert_eq!(take_in(&tools(), FOR_PEOPLE).line(), "/tools/journalctl --sync");
    let line = last_lines(&tools(), &unit(), u32::MAX).line();
    assert_eq!(
        line,
        "/tools/journalctl --no-pager --quiet --all --lines=10000 --boot --output=cat --unit n-four.service"
    );
    let cursor: Cursor = "s=1;i=2".parse().expect("a cursor");
    assert!(entries(&tools(), &unit(), Some(&cursor), 5).line().ends_with("'--after-cursor=s=1;i=2'"));
}

#[test]
fn entries_are_read_with_odd_bytes_and_without_colour() {
    for version in SYSTEMD {
        let found =
            parse_entries(&recorded(&format!("journalctl-{version}-json"), "stdout")).expect("entries");
        let said: Vec<_> = found.iter().map(|entry| entry.message.as_str()).collect();
        assert_eq!(found.len(), 10);
        assert_eq!(&said[2..5], ["first line", "second <4>line", "bad news"]);
        assert_eq!(said[5], "bytes \u{fffd}\u{fffd} end");
        assert_eq!(said[6], "red");
        assert_eq!(found[4].priority, Some(3));
        assert!(found.windows(2).all(|pair| pair[0].at_unix_us <= pair[1].at_unix_us));
        let after =
            parse_entries(&recorded(&format!("journalctl-{version}-after"), "stdout")).expect("entries");
        assert_eq!(after, found[8..]);
    }
}

#[test]
fn the_last_lines_are_text() {
    for version in SYSTEMD {
        let text = recorded(&format!("journalctl-{version}-cat"), "stdout");
        let two = parse_last_lines(&text, 2);
        assert_eq!(two.len(), 2);
        assert_eq!(two[1], "n-four.service: Failed with result 'exit-code'.");
        assert!(parse_last_lines(&text, 50).contains(&"red".to_owned()));
        assert!(parse_last_lines(&recorded(&format!("journalctl-{version}-none"), "stdout"), 5).is_empty());
    }
}

#[test]
fn messages_come_in_several_forms() {
    let line = |message: &str| {
        format!(r#"{{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"7","MESSAGE":{message},"PRIORITY":"9"}}"#)
    };
    let message = |json: &str| parse_entries(&line(json)).map(|entries| entries[0].message.clone());
    assert_eq!(message("null"), Ok(String::new()));
    assert_eq!(message(r#"["a","b"]"#), Ok("a\nb".to_owned()));
    assert_eq!(message("[104,105]"), Ok("hi".to_owned()));
    for bad in ["true", "{}", "[300]", r#"["a",1]"#] {
        assert!(message(bad).is_err(), "{bad}");
    }
    assert_eq!(parse_entries(&line("null")).expect("one")[0].priority, None, "9 is no priority");
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in any::<String>(), lines in any::<u32>()) {
        let _ = (parse_entries(&text), parse_last_lines(&text, lines), text.parse::<Cursor>());
    }
}
