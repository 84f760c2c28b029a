//! LESSONS.md names tests that are there: a rule whose test was renamed or removed is noticed here (lesson 39).

use std::collections::BTreeSet;
use std::path::Path;

use crate::workspace;

/// As many rules as there are.
const RULES: usize = 39;
const STORIES: &str = "crates/nixfleet-core/tests/rollout/stories";

/// The rows of the tables: a number and everything behind it.
fn rows(document: &str) -> Vec<(usize, &str)> {
    document
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .filter_map(|(number, rest)| Some((number.parse().ok()?, rest)))
        .collect()
}

/// The names between backticks in the last column: tests, and the stories, which the word before them tells apart.
fn named(row: &str) -> (Vec<&str>, Vec<&str>) {
    let last = row.rsplit_once(" | ").map_or(row, |(_, last)| last);
    let pieces: Vec<&str> = last.split('`').collect();
    let names = pieces.chunks_exact(2).map(|pair| (pair[0].trim() == "story", pair[1]));
    let (stories, tests): (Vec<_>, Vec<_>) = names.partition(|(is_story, _)| *is_story);
    (tests.into_iter().map(|(_, name)| name).collect(), stories.into_iter().map(|(_, name)| name).collect())
}

/// Every function, and every row of a table of tests, of the sources below `folder`.
fn names_below(folder: &Path, names: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() && !path.ends_with("target") {
            names_below(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            names.extend(text.lines().filter_map(defined).map(str::to_owned));
        }
    }
}

/// What a line defines: `fn NAME(` or, in a table, `NAME: …` or `NAME,`.
fn defined(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("async ").unwrap_or(line);
    let start = line.strip_prefix("fn ").unwrap_or(line);
    let end = start.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))?;
    let name = &start[..end];
    (name.matches('_').count() >= 2).then_some(name)
}

#[test]
fn every_rule_names_tests_and_stories_that_are_there() {
    let root = workspace::root();
    let document = std::fs::read_to_string(root.join("LESSONS.md")).expect("it is there");
    let mut known = BTreeSet::new();
    names_below(&root.join("crates"), &mut known);
    names_below(&root.join("xtask"), &mut known);
    let rows = rows(&document);
    let numbers: Vec<usize> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=RULES).collect::<Vec<_>>(), "each rule has one row");
    for (number, row) in rows {
        let (tests, stories) = named(row);
        assert!(!tests.is_empty(), "rule {number} has no test");
        for test in tests {
            assert!(known.contains(test), "rule {number} names `{test}`, and no test is called that");
        }
        for story in stories {
            let path = root.join(STORIES).join(format!("{story}.txt"));
            assert!(path.is_file(), "rule {number} names the story `{story}`, which is not there");
        }
    }
}

#[test]
fn a_row_is_taken_apart() {
    let document = "| | rule |\n|---|---|\n| 7 | Say `so`. | `a_b_c` `d_e_f` story `x-y` |\n";
    let rows = rows(document);
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].0, named(rows[0].1)), (7, (vec!["a_b_c", "d_e_f"], vec!["x-y"])));
    assert_eq!(defined("    async fn a_b_c() {"), Some("a_b_c"));
    assert_eq!(
        defined("    a_foreign_architecture_is_refused: Row::x();"),
        Some("a_foreign_architecture_is_refused")
    );
    assert_eq!(defined("    short(x)"), None);
}
