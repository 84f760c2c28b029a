//! What the documents for users say can be typed is typed (lesson 39): every command line in a code block is given to the
//! program that it names, with `--help` behind it, so that it is read to its end and does nothing.
//!
//! What the commands then do is the matter of the other tests.

use std::path::Path;
use std::process::Command;

/// The programs that documents name, and where `cargo xtask test` says they are.
const PROGRAMS: [(&str, &str); 3] = [
    ("nixfleet", "NIXFLEET_CLI_BIN"),
    ("nixfleet-agent", "NIXFLEET_AGENT_BIN"),
    ("nixfleet-control-plane", "NIXFLEET_CONTROL_PLANE_BIN"),
];
const DOCUMENTS: [(&str, &str); 3] = [
    ("README.md", include_str!("../../../../README.md")),
    ("CONTRIBUTING.md", include_str!("../../../../CONTRIBUTING.md")),
    ("SECURITY.md", include_str!("../../../../SECURITY.md")),
];

#[test]
fn every_command_of_the_documents_is_one_that_its_program_understands() {
    let mut tried = 0;
    for (document, text) in DOCUMENTS {
        for words in commands(text) {
            let Some((_, variable)) = PROGRAMS.iter().find(|(name, _)| words[0] == *name) else { continue };
            let Some(program) = std::env::var_os(variable) else { continue };
            assert_understood(document, &words, Path::new(&program));
            tried += 1;
        }
    }
    assert!(tried > 0 || PROGRAMS.iter().all(|(_, variable)| std::env::var_os(variable).is_none()));
}

#[allow(clippy::disallowed_methods, reason = "a program of ours that prints its help and ends")]
fn assert_understood(document: &str, words: &[String], program: &Path) {
    let said = Command::new(program).args(&words[1..]).arg("--help").output().expect("it runs");
    let complaint = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{document} says `{}`, and is told:\n{complaint}", words.join(" "));
}

/// The command lines of all code blocks, in words. A comment behind one is left out, and so are `&&` and `&` with what
/// they join.
fn commands(document: &str) -> Vec<Vec<String>> {
    let mut within = false;
    let mut out = Vec::new();
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            within = !within;
        } else if within {
            out.extend(words(line).split(|word| word == "&&" || word == "&").map(<[String]>::to_vec));
        }
    }
    out.retain(|command| !command.is_empty());
    for word in out.iter_mut().flatten() {
        *word = meant(word);
    }
    out
}

/// A word with something in the place of what documents leave to their reader.
fn meant(word: &str) -> String {
    let hash = "0".repeat(32);
    match word {
        "/nix/store/…" => format!("/nix/store/{hash}-system"),
        asked if asked.starts_with("$(") => "output".to_owned(),
        other => other.replace("/nix/store/…", &format!("/nix/store/{hash}")),
    }
}

/// The words of a line as a shell would split it, without expansions: enough for what a document says.
fn words(line: &str) -> Vec<String> {
    let (mut out, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, open @ ('"' | '\'')) => {
                quote = Some(open);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, blank) if blank.is_whitespace() => out.extend(word.take()),
            (Some(_) | None, other) => word.get_or_insert_default().push(other),
        }
    }
    out.extend(word);
    out
}

#[test]
fn a_line_is_split_as_a_shell_splits_it() {
    assert_eq!(
        words("nixfleet hold web-2 --why \"two words\" '' # a comment"),
        ["nixfleet", "hold", "web-2", "--why", "two words", ""]
    );
    let document = "nixfleet outside\n```\nmake it && nixfleet a b & # c\n\n```\nnixfleet outside\n";
    assert_eq!(commands(document), [vec!["make", "it"], vec!["nixfleet", "a", "b"]]);
}
