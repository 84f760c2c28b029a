use super::*;
use crate::tools::tests::replay;
use proptest::prelude::*;

fn one(line: &str) -> Sample<'_> {
    let mut read = samples(line);
    let sample = read.next().expect("a sample").expect("well-formed");
    assert!(read.next().is_none());
    sample
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

prop_compose! {
    fn any_labels()(labels in proptest::collection::btree_map("[a-zA-Z_][a-zA-Z0-9_]{0,6}", any::<String>(), 0..5))
        -> Vec<(String, String)> { labels.into_iter().collect() }
}

proptest! {
    #[test]
    fn no_text_stops_the_reader(text in any::<String>(), nearly in "[a-z{}=\",\\\\# \n0-9.+eN-]{0,80}") {
        for page in [&text, &nearly] {
            let read: Vec<_> = samples(page).collect();
            let errors = read.iter().filter(|read| read.is_err()).count();
            prop_assert!(errors <= 1 && read.iter().rev().skip(1).all(Result::is_ok), "an error is the last");
            let _ = page.parse::<Selector>();
        }
    }

    #[test]
    fn what_is_written_is_read_and_found(
        name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,12}",
        labels in any_labels(),
        value in any::<f64>().prop_filter("a number", |value| value.is_finite()),
        time in proptest::option::of(any::<i64>()),
        blanks in "[ \t]{1,3}",
        chosen in any::<prop::sample::Selector>(),
    ) {
        let written = |labels: &[(String, String)]| {
            let labels: Vec<_> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            if labels.is_empty() { name.clone() } else { format!("{name}{{{}}}", labels.join(",")) }
        };
        let time = time.map(|time| format!(" {time}")).unwrap_or_default();
        let line = format!("{}{blanks}{value:e}{time}", written(&labels));
        let sample = one(&line);
        prop_assert_eq!(sample.name, &name);
        prop_assert_eq!(sample.value.to_bits(), value.to_bits());
        let got: Vec<_> = sample.labels.iter().map(|(n, v)| ((*n).to_owned(), v.clone().into_owned())).collect();
        prop_assert_eq!(&got, &labels);

        let some: Vec<_> = chosen.try_select(labels.iter()).cloned().into_iter().collect();
        let selector: Selector = written(&some).parse().expect("well-formed");
        prop_assert!(selector.matches(&sample), "some of its labels mean it");
        let other: Selector = format!("{name}{{other_label_name=\"x\"}}").parse().expect("well-formed");
        prop_assert!(!other.matches(&sample), "a label that it has not does not");
    }

    #[test]
    fn a_line_with_something_behind_it_is_refused(rest in "[a-z<>!]{1,10}") {
        let line = format!("up 1 2 {rest}");
        prop_assert!(samples(&line).any(|read| read.is_err()));
    }
}

#[test]
fn comments_empty_lines_times_and_exemplars_are_passed_over() {
    let page = "# HELP up Whether it is.\n#\n\n \t \nup 1 1700000000000\n\
                b_bucket{le=\"+Inf\",} +Inf # {trace_id=\"a\"} 0.67\n# EOF\n";
    let read: Vec<_> = samples(page).map(|read| read.expect("well-formed")).collect();
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].name, "up");
    assert!(read[0].value.to_bits() == 1.0_f64.to_bits());
    assert_eq!(read[1].name, "b_bucket");
    assert!(read[1].value.is_infinite());
    assert_eq!(read[1].labels, [("le", Cow::Borrowed("+Inf"))]);
}

#[test]
fn what_is_none_of_the_forms_is_an_error_with_its_line() {
    for (bad, why) in [
        ("up", "no value"),
        ("up one", "not a number"),
        ("up infinity", "not a number"),
        ("up nan", "not a number"),
        ("up 0x10", "not a number"),
        ("up 1_000", "not a number"),
        ("up 1\r", "not a number"),
        ("up 1 now", "the time"),
        ("1up 1", "name of a metric"),
        ("<html>", "name of a metric"),
        ("{\"quoted\"} 1", "name of a metric"),
        ("up{a=\"b\" 1", "do not end"),
        ("up{a=\"b} 1", "does not end"),
        ("up{a=b} 1", "not in quotes"),
        ("up{a} 1", "no value"),
        ("up{=\"b\"} 1", "no name"),
        ("up{,} 1", "no name"),
        ("up{a=\"\\t\"} 1", "escape"),
        ("up{a=\"1\",a=\"2\"} 1", "twice"),
    ] {
        let page = format!("good 1\n{bad}\n");
        let error = samples(&page).find_map(Result::err).unwrap_or_else(|| panic!("`{bad}` was read"));
        assert_eq!(error.line, 2);
        assert!(error.why.contains(why), "{bad}: {error}");
    }
}

#[test]
fn a_selector_is_a_sample_without_its_value() {
    for bad in ["", "up 1", "up{", "up{a=\"b\"}x", "1up", "up ", "{a=\"b\"}"] {
        assert_eq!(bad.parse::<Selector>(), Err(NotASelector), "{bad}");
    }
    assert!("up{}".parse::<Selector>().is_ok());
}

#[test]
fn lines_and_labels_have_a_bound() {
    let labels = |count: usize| (0..count).map(|n| format!("a{n}=\"\"")).collect::<Vec<_>>().join(",");
    assert!(samples(&format!("up{{{}}} 1", labels(LABELS_MAX))).all(|read| read.is_ok()));
    assert!(samples(&format!("up{{{}}} 1", labels(LABELS_MAX + 1))).any(|read| read.is_err()));
    let long = format!("up{{a=\"{}\"}} 1", "x".repeat(LINE_BYTES_MAX));
    assert!(samples(&long).any(|read| read.is_err()));
}

#[test]
fn the_corpus_is_read_without_a_panic() {
    replay("metrics", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        drop(samples(&text).collect::<Vec<_>>());
        drop(text.lines().next().unwrap_or_default().parse::<Selector>());
    });
}
