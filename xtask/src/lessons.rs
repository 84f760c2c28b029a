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

/// Every test, and every row of a table of tests, of the sources below `folder`.
fn names_below(folder: &Path, names: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() && !path.ends_with("target") {
            names_below(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            names.extend(tests_in(&text).into_iter().map(str::to_owned));
        }
    }
}

/// The names that a source gives to tests: a function behind `#[test]` or `#[tokio::test…]`, or a row of a table, which is a
/// macro of ours that begins and ends at the margin. Any other function may have such a name and is run by nobody.
fn tests_in(source: &str) -> Vec<&str> {
    let (mut names, mut is_test, mut in_table) = (Vec::new(), false, false);
    for line in source.lines() {
        let word = line.trim_start();
        let word = word.strip_prefix("async ").unwrap_or(word);
        if word == "#[test]" || word.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(function) = word.strip_prefix("fn ") {
            names.extend(name_in(function).filter(|_| std::mem::take(&mut is_test)));
        } else if begins_table(line) {
            in_table = true;
        } else if line.starts_with(['}', ']']) {
            in_table = false;
        } else if in_table && let Some(row) = line.strip_prefix("    ") {
            names.extend(name_in(row).filter(|name| row[name.len()..].starts_with([':', ','])));
        }
    }
    names
}

/// `outcomes! {` or `stories![`, but for the one macro of others that holds functions.
fn begins_table(line: &str) -> bool {
    let called = line.strip_suffix("! {").or_else(|| line.strip_suffix("!["));
    called.is_some_and(|name| name != "proptest" && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
}

/// The name at the beginning of a text: a sentence, of three words at least.
fn name_in(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))?;
    let name = &text[..end];
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
}

#[test]
fn only_what_is_run_as_a_test_counts_as_one() {
    let source = "\
#[test]
fn a_b_c() {
    d_e_f(g_h_i);
}
fn d_e_f(x: u8) {}
#[tokio::test(flavor = \"multi_thread\")]
#[allow(
    clippy::x_y_z,
)]
async fn j_k_l() {
fn m_n_o() {
outcomes! {
    p_q_r: Row::s_t_u();
        v_w_x: of_a_row;
}
stories![
    y_z_a,
];
    b_c_d,
";
    assert_eq!(tests_in(source), ["a_b_c", "j_k_l", "p_q_r", "y_z_a"]);
}
