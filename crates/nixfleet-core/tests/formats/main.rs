//! What is stored and what is sent keeps its form: each line of a fixture is read and written again byte for byte, and
//! each variant of each type has a line. A fixture is never edited, only added to: a line that has to change is a new
//! format, with a folder of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod decision;
mod event_batch;
mod events_taken;
mod fact;
mod hello;
mod order;
mod orders;
mod reason;
mod snapshot;
mod standing;
mod verb;

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads every line of a fixture, and checks that it is written the same. A line that was cut off is refused.
fn lines<T: Serialize + DeserializeOwned>(fixture: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
    let text = std::fs::read_to_string(&path).unwrap();
    let read = |line: &str| {
        let value: T =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{fixture}: {line}: {error}"));
        assert_eq!(serde_json::to_string(&value).unwrap(), line, "{fixture}");
        for end in (0..line.len()).filter(|end| line.is_char_boundary(*end)) {
            assert!(serde_json::from_str::<T>(&line[..end]).is_err(), "{fixture}: {line} torn at {end}");
        }
        value
    };
    let values: Vec<T> = text.lines().map(read).collect();
    assert!(!values.is_empty(), "{fixture}");
    values
}

/// Checks that the values have exactly these variants.
fn all_variants<T>(values: &[T], variant: fn(&T) -> &'static str, all: &[&'static str]) {
    let seen: BTreeSet<&str> = values.iter().map(variant).collect();
    assert_eq!(seen, all.iter().copied().collect());
}

/// Checks that a field more is refused: what is stored is read as a whole or not at all.
fn refuses_a_field_more<T: Serialize + DeserializeOwned>(value: &T) {
    let mut json = serde_json::to_value(value).unwrap();
    json["poem"] = "of tomorrow".into();
    assert!(serde_json::from_value::<T>(json).is_err());
}

/// Checks that a field more is passed over: both ends of a wire are updated at different times.
fn passes_over_a_field_more<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let mut json = serde_json::to_value(value).unwrap();
    json["poem"] = "of tomorrow".into();
    assert_eq!(serde_json::from_value::<T>(json).unwrap(), *value);
}
