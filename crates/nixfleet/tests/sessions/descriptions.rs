//! `check`: faults of a description, for people and for programs.

use serde_json::Value;

use crate::support::Session;

#[test]
fn faults_are_shown_with_their_lines_to_people_and_as_json_to_programs() {
    let session = Session::initialised();
    let good = session.read("fleet.json");
    session.write("fleet.json", &good.replace("\"soak\"", "\"soack\""));
    let why = session.refused(&["check"]);
    assert!(why.contains("fleet.json:1:"), "{why}");
    assert!(why.contains("did you mean `soak`?") && why.contains("fleet.json has 2 faults"), "{why}");
    let said = session.run(&["check", "-o", "json"]);
    assert_eq!(said.code, 1);
    let json: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(json["version"], 1);
    assert_eq!(json["faults"].as_array().expect("a list").len(), 2, "{json}");
    assert!(json["faults"][0]["line"].is_u64() && json["faults"][0]["column"].is_u64(), "{json}");
    assert_eq!((&json["error"]["kind"], &json["error"]["code"]), (&"refused".into(), &1.into()), "{json}");
}

#[test]
fn a_description_may_come_from_another_program() {
    let session = Session::initialised();
    let text = session.read("fleet.json");
    let said = crate::support::said(
        session.verb(&["check", "--fleet", "-", "-o", "name"]).stdin(text).run_blocking(),
    );
    assert_eq!((said.code, said.out.as_str()), (0, "web-1\nweb-2\n"), "{said:?}");
}

#[test]
fn a_channel_that_was_misspelt_is_guessed_in_the_hint_alone() {
    let session = Session::initialised();
    let closures = session.text("closures.json");
    let why = session.refused(&["release", "build", "--channel", "stabel", "--path-info", &closures]);
    assert!(why.contains("no channel stabel") && why.contains("did you mean `stable`?"), "{why}");
    assert!(!session.path("served/channels").exists());
}
