//! Other people's programs: what is said of their end, and that nothing of them stays. The agent is the real one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_agent::activation::linux::LinuxBackend;
use nixfleet_agent::hooks;
use nixfleet_agent::probes::Prober;
use nixfleet_agent::programs::{EVIDENCE_CHARS, Holder, run};
use nixfleet_core::model::probe::{ExecProbe, ProbeKind};
use nixfleet_core::model::schedule::Hook;
use nixfleet_core::model::time::Secs;

/// Far longer than anything here takes; a test that gets there fails.
const LONG: Duration = Duration::from_mins(1);

fn holder() -> Holder {
    Holder::Child { agent: env!("CARGO_BIN_EXE_nixfleet-agent").into() }
}

fn sh(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

async fn said(script: &str, limit: Duration) -> Result<String, String> {
    run(&holder(), &sh(script), limit).await
}

/// A line of shell that starts a sleeper in a session of its own, which writes its process id to `file`.
fn runaway(file: &Path) -> String {
    format!(
        "setsid sh -c 'trap \"\" TERM; echo $$ > {0}.new; mv {0}.new {0}; sleep 600; sleep 600' &",
        file.display()
    )
}

/// A program in the background, in our own process group.
fn background(file: &Path) -> String {
    format!("(echo $BASHPID; exec sleep 600) > {} &", file.display())
}

async fn pid_in(file: &Path) -> u32 {
    for _ in 0..6000 {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Ok(pid) = text.trim().parse() {
            return pid;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} was not written", file.display());
}

/// Whether the process runs; one that waits for its parent has ended.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

async fn assert_ends(pid: u32) {
    for _ in 0..6000 {
        if !runs(pid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("process {pid} is still there");
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("pid");
    (dir, file)
}

#[tokio::test]
async fn only_exit_code_0_passes_and_the_last_words_are_the_evidence() {
    assert_eq!(said("echo fine; echo all fine", LONG).await, Ok("fine | all fine".to_owned()));
    assert_eq!(said("exit 0", LONG).await, Ok(String::new()));
    assert_eq!(said("echo out; echo err >&2; exit 3", LONG).await, Err("exit status 3: out".to_owned()));
    assert_eq!(said("echo err >&2; exit 3", LONG).await, Err("exit status 3: err".to_owned()));
    assert_eq!(
        said("kill -TERM $$", LONG).await,
        Err("exit status 143".to_owned()),
        "a signal is no success"
    );
    assert_eq!(said("kill -KILL $$", LONG).await, Err("exit status 137".to_owned()));
    let long = said("head -c 300000 /dev/zero | tr '\\0' x; echo end", LONG).await.expect("0");
    assert!(long.ends_with("xend") && long.len() == EVIDENCE_CHARS, "{}", long.len());
}

#[tokio::test]
async fn what_cannot_be_run_is_a_failure_that_says_so() {
    let run = async |argv: &[&str]| {
        let argv: Vec<String> = argv.iter().map(|arg| (*arg).to_owned()).collect();
        run(&holder(), &argv, LONG).await.expect_err("it is no program")
    };
    assert!(run(&["/nowhere/at-all"]).await.contains("cannot be run: No such file"));
    assert!(run(&["/etc/passwd"]).await.contains("cannot be run: Permission denied"));
    assert_eq!(run(&["sh", "-c", "true"]).await, "`sh` is not an absolute path");
    assert_eq!(run(&[]).await, "no program is named");
}

#[tokio::test]
async fn arguments_arrive_as_they_are_and_the_environment_is_ours_alone() {
    let argv = ["/bin/echo", "--", "-n", "$HOME", "a b"].map(str::to_owned);
    assert_eq!(run(&holder(), &argv, LONG).await, Ok("-- -n $HOME a b".to_owned()));
    let env = run(&holder(), &["/usr/bin/env".to_owned()], LONG).await.expect("0");
    let names: Vec<_> =
        env.split(" | ").filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert_eq!(names.len(), 2, "{env}");
    assert!(names.contains(&"PATH") && names.contains(&"LC_ALL"), "{env}");
}

#[tokio::test]
async fn at_the_deadline_nothing_stays_not_even_what_left_the_group_and_ignores_sigterm() {
    let (_dir, file) = folder();
    let script = format!("{} echo begun >&2; sleep 600", runaway(&file));
    // Long enough for the agent and two shells to start on a busy machine.
    let said = said(&script, Duration::from_secs(25)).await;
    assert_eq!(said, Err("no answer within 25 s: begun".to_owned()));
    let pid = pid_in(&file).await;
    assert_ends(pid).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    let (dir, file) = folder();
    let other = dir.path().join("other");
    let wait = format!("until [ -s {} ] && [ -s {} ]; do sleep 0.01; done", file.display(), other.display());
    let script = format!("{} /bin/bash -c '{}'; {wait}; echo done", runaway(&file), background(&other));
    assert_eq!(said(&script, LONG).await, Ok("done".to_owned()));
    for file in [&file, &other] {
        assert!(!runs(pid_in(file).await), "it is over when we hear of it");
    }
}

#[tokio::test]
async fn whoever_drops_the_question_ends_the_program() {
    let (_dir, file) = folder();
    let script = format!("{} sleep 600", runaway(&file));
    let asked = tokio::spawn(async move { said(&script, LONG).await });
    let pid = pid_in(&file).await;
    assert!(runs(pid));
    asked.abort();
    assert_ends(pid).await;
}

#[tokio::test]
async fn an_exec_probe_is_such_a_program() {
    let probe = |script: &str, secs| {
        let kind = ProbeKind::Exec(ExecProbe { argv: sh(script) });
        Prober::new(kind, Duration::from_secs(secs), holder())
    };
    let backend = LinuxBackend::new();
    assert_eq!(probe("echo well", 60).ask(&backend).await, Ok("well".to_owned()));
    assert_eq!(probe("echo ill; false", 60).ask(&backend).await, Err("exit status 1: ill".to_owned()));
    assert_eq!(probe("sleep 600", 1).ask(&backend).await, Err("no answer within 1 s".to_owned()));
}

#[tokio::test]
async fn hooks_run_one_after_the_other_and_the_first_that_fails_is_the_last() {
    let (_dir, file) = folder();
    let hook = |script: &str, secs| Hook { argv: sh(script), deadline_secs: Secs(secs) };
    let append = |word: &str| hook(&format!("echo {word} >> {}", file.display()), 60);
    assert_eq!(hooks::run(&holder(), &[]).await, Ok(()));
    assert_eq!(hooks::run(&holder(), &[append("one"), append("two")]).await, Ok(()));
    let row = [append("three"), hook("echo no room; exit 1", 60), append("never")];
    let fault = hooks::run(&holder(), &row).await.expect_err("the second fails");
    assert_eq!(fault.to_string(), "hook 2 of 3, `/bin/sh`: exit status 1: no room");
    let fault = hooks::run(&holder(), &[hook("sleep 600", 1), append("never")]).await.expect_err("too slow");
    assert_eq!(fault.to_string(), "hook 1 of 2, `/bin/sh`: no answer within 1 s");
    assert_eq!(std::fs::read_to_string(&file).expect("written"), "one\ntwo\nthree\n");
}
