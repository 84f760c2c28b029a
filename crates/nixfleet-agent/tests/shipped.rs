//! What the shipped binary must not contain.

/// Lesson 11: no environment variable of the shipped binary may fake or stop an activation, or choose its platform.
#[test]
#[cfg(not(feature = "failpoints"))]
fn a_build_without_the_feature_has_no_failpoints() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_nixfleet-agent")).expect("cargo built it");
    // std's own search is a fast one in a debug build, too. All that is looked for is ASCII, which no replaced byte can hide.
    let binary = String::from_utf8_lossy(&binary);
    let has = |text: &str| binary.contains(text);
    assert!(has("switch-to-configuration"), "this is the agent");
    assert!(!has("NIXFLEET_FAILPOINT") && !has("nixfleet-failpoint") && !has("NIXFLEET_BACKEND"));
}
