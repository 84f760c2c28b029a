//! What the shipped binary must not contain.

/// Lesson 11: no environment variable of the shipped binary may fake or stop an activation, or choose its platform.
#[test]
#[cfg(not(feature = "failpoints"))]
fn a_build_without_the_feature_has_no_failpoints() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_nixfleet-agent")).expect("cargo built it");
    let has = |text: &str| binary.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("switch-to-configuration"), "this is the agent");
    assert!(!has("NIXFLEET_FAILPOINT") && !has("nixfleet-failpoint") && !has("NIXFLEET_BACKEND"));
}
