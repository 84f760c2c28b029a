use proptest::prelude::*;

use super::*;

/// The value as serde's, for the comparison with another parser.
fn plain(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => serde_json::Value::Bool(*value),
        Value::Number(text) => serde_json::from_str(text).expect("a number is a number"),
        Value::Text(text) => serde_json::Value::String(text.clone()),
        Value::List(nodes) => nodes.iter().map(plain).collect(),
        Value::Object(fields) => serde_json::Value::Object(
            fields.iter().map(|field| (field.name.clone(), plain(&field.node))).collect(),
        ),
    }
}

fn refusal(text: &str) -> (String, String) {
    let NotJson { span, what } = read(text).expect_err(text);
    (Lines::new(text).position(span).to_string(), what)
}

#[test]
fn a_fault_is_placed_where_the_text_stops_being_json() {
    for (text, place, why) in [
        ("{\n  \"a\": 1,\n  \"b\" 2\n}", "3:7", "a colon is expected, and `2`"),
        ("{\"a\": 1,}", "1:9", "the name of a field"),
        ("[1 2]", "1:4", "a comma or `]`"),
        ("[\n1,\n", "3:1", "the text ends"),
        ("\"abc", "1:5", "the closing double quote"),
        ("\"a\nb\"", "1:3", "must be escaped"),
        ("{\"ä\": \"ö\" x}", "1:11", "a comma or `}`"),
        ("nul", "1:1", "a value"),
        ("{} {}", "1:4", "something follows"),
        ("01", "1:2", "something follows"),
        ("-", "1:2", "a digit"),
        ("\"\\ud800\"", "1:2", "half of a pair"),
        ("\"\\x\"", "1:3", "after a backslash"),
        ("", "1:1", "the text ends"),
    ] {
        let (found, what) = refusal(text);
        assert_eq!(found, place, "{text}: {what}");
        assert!(what.contains(why), "{text}: {what}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    read(&nested(64)).expect("as deep as is allowed");
    assert!(refusal(&nested(65)).1.contains("nests deeper"));
    assert!(refusal(&"[".repeat(1_000_000)).1.contains("nests deeper"));
}

#[test]
fn both_values_of_a_name_that_stands_twice_are_kept() {
    let Value::Object(fields) = read("{\"a\": 1, \"a\": 2}").expect("it is JSON").value else {
        panic!("an object")
    };
    assert_eq!(fields.len(), 2);
    assert!(fields[0].at < fields[1].at);
}

#[test]
fn a_place_inside_a_character_does_not_panic() {
    let lines = Lines::new("ä\nö");
    for from in 0..9 {
        let position = lines.position(Span { from, to: from + 1 });
        assert!(position.line <= 2, "{position}");
        let _ = lines.line(Span { from, to: from });
    }
}

/// Any value, as another program writes it.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value as V;
    let leaf = prop_oneof![
        Just(V::Null),
        any::<bool>().prop_map(V::Bool),
        any::<i64>().prop_map(V::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(V::from),
        any::<String>().prop_map(V::String),
    ];
    leaf.prop_recursive(4, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(V::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|fields| V::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_another_program_writes_is_read_as_it_was_meant(value in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.expect("a value");
        // Read by the other program too, which does not read every number as it was written.
        let elsewhere: serde_json::Value = serde_json::from_str(&text).expect("its own text");
        prop_assert_eq!(plain(&read(&text).expect(&text)), elsewhere);
    }

    #[test]
    fn a_text_is_json_here_if_and_only_if_it_is_elsewhere(text in "[\\[\\]{}:,\"\\\\0-9.eE+\\- \ntrufalsn\u{e4}]{0,24}") {
        // The one difference that is meant: another parser refuses numbers that are larger than any.
        let elsewhere = serde_json::from_str::<serde_json::Value>(&text);
        match read(&text) {
            Ok(node) => match elsewhere {
                Ok(value) => prop_assert_eq!(plain(&node), value),
                Err(error) => prop_assert!(error.to_string().contains("out of range"), "{}: {}", text, error),
            },
            Err(refused) => prop_assert!(elsewhere.is_err(), "{}: {}", text, refused),
        }
    }

    #[test]
    fn every_value_stands_where_its_place_says(value in any_json()) {
        let text = serde_json::to_string(&value).expect("a value");
        let mut open = vec![read(&text).expect("JSON")];
        while let Some(node) = open.pop() {
            let slice = &text[usize::try_from(node.span.from).expect("small")..usize::try_from(node.span.to).expect("small")];
            prop_assert_eq!(plain(&read(slice).expect("JSON by itself")), plain(&node));
            match node.value {
                Value::List(nodes) => open.extend(nodes),
                Value::Object(fields) => open.extend(fields.into_iter().map(|field| field.node)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
            }
        }
    }

    #[test]
    fn no_text_is_too_strange(text: String) {
        if let Err(NotJson { span, .. }) = read(&text) {
            let lines = Lines::new(&text);
            let _ = (lines.position(span), lines.line(span));
        }
    }
}
