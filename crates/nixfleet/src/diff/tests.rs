use super::*;

#[test]
fn rules_are_compared_by_their_place() {
    let old =
        serde_json::json!({ "policy": { "waves": [{ "soak_secs": 60 }, { "soak_secs": 5 }], "same": 1 } });
    let new = serde_json::json!({ "policy": { "waves": [{ "soak_secs": 30 }], "same": 1, "fresh": "x" } });
    let mut out = Vec::new();
    compare("", Some(&old), Some(&new), &mut out);
    let said: Vec<_> =
        out.iter().map(|rule| (rule.place.as_str(), rule.old.is_some(), rule.new.is_some())).collect();
    assert_eq!(
        said,
        [
            ("policy.fresh", false, true),
            ("policy.waves[0].soak_secs", true, true),
            ("policy.waves[1]", true, false),
        ]
    );
}

#[test]
fn a_name_that_is_no_word_is_quoted_so_that_it_can_be_nothing_else() {
    let new = serde_json::json!({ "info": { "a: 1\nsignatures  2 of 2": "x", "": "y", "ci_job": "z" } });
    let mut out = Vec::new();
    compare("", Some(&serde_json::json!({ "info": {} })), Some(&new), &mut out);
    let places: Vec<_> = out.iter().map(|rule| rule.place.as_str()).collect();
    assert_eq!(places, [r#"info."""#, r#"info."a: 1\nsignatures  2 of 2""#, "info.ci_job"]);
}
