use super::*;

fn sh(script: &str) -> Cmd {
    Cmd::new("/bin/sh").arg("-c").arg(script).env("PATH", "/usr/bin:/bin")
}

#[tokio::test]
async fn a_program_that_ends_well_hands_over_its_output() {
    let got = sh("echo out; echo err >&2").run().await.expect("it runs").success().expect("it ends with 0");
    assert_eq!(got.stdout, b"out\n");
    assert_eq!(got.stderr_tail, "err");
}

#[tokio::test]
async fn a_failed_program_says_the_whole_line_and_its_last_words() {
    let said = sh("echo why >&2; exit 3")
        .run()
        .await
        .expect("it runs")
        .success()
        .expect_err("3 is not 0")
        .to_string();
    assert!(said.contains("/bin/sh -c 'echo why >&2; exit 3'"), "{said}");
    assert!(said.contains("exit status 3") && said.ends_with("why"), "{said}");
}

#[tokio::test]
async fn a_killed_program_has_no_exit_code() {
    let got = sh("kill -9 $$").run().await.expect("it runs");
    assert_eq!(got.ended, Ended::Signalled(9));
    assert_eq!(got.ended.code(), None);
    assert!(got.success().is_err());
}

#[tokio::test]
async fn a_deadline_ends_the_grandchildren_too() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let script = format!("(while :; do echo on >>{}; sleep 0.1; done) & sleep 30", file.path().display());
    let got = sh(&script).deadline(Duration::from_secs(1)).run().await;
    assert!(matches!(got, Err(ExecError::Deadline { .. })), "{got:?}");
    // One that goes on would write twenty times in this time.
    let written = || std::fs::metadata(file.path()).expect("there").len();
    for _ in 0..30 {
        let before = written();
        tokio::time::sleep(Duration::from_secs(2)).await;
        if written() == before {
            return;
        }
    }
    panic!("the grandchild goes on");
}

struct Counts(usize);
impl Listener for Counts {
    fn line(&mut self, line: &[u8]) -> Heard {
        self.0 += 1;
        match line {
            b"more" => Heard::Progress,
            b"stop me" => Heard::Enough,
            _ => Heard::Words,
        }
    }
    fn is_word(&self, line: &[u8]) -> bool {
        line != b"more"
    }
}

#[tokio::test]
async fn progress_moves_the_stall_limit_and_words_do_not() {
    // Each pause is far shorter than the limit, all of them together are longer.
    let stall = Duration::from_secs(8);
    let moves = "for i in 1 2 3 4 5 6 7 8 9 10; do echo more >&2; sleep 1; done";
    let mut heard = Counts(0);
    let got = sh(moves).stall(stall).run_heard(&mut heard).await.expect("it moves");
    assert_eq!((got.ended, heard.0, got.stderr_tail.as_str()), (Ended::Exited(0), 10, ""));
    let talks = "while true; do echo talk >&2; sleep 0.4; done";
    let got = sh(talks).stall(stall).run_heard(&mut Counts(0)).await;
    assert!(matches!(got, Err(ExecError::Stalled { .. })), "{got:?}");
}

/// Longer than the few tenths of a second that the program below takes, on a busy machine too.
const STILL: Duration = Duration::from_secs(8);

/// Stands still itself at the first word: until the program has said all that it says, and then for longer than it may be
/// silent.
struct HeldUp {
    all_said: PathBuf,
    held: bool,
}
impl Listener for HeldUp {
    fn line(&mut self, line: &[u8]) -> Heard {
        if line == b"more" {
            return Heard::Progress;
        }
        if !std::mem::replace(&mut self.held, true) {
            while !self.all_said.exists() {
                std::thread::sleep(Duration::from_millis(10));
            }
            std::thread::sleep(STILL + Duration::from_millis(500));
        }
        Heard::Words
    }
    fn is_word(&self, _: &[u8]) -> bool {
        true
    }
}

#[test]
fn a_program_that_moves_is_not_blamed_for_our_standing_still() {
    let round = || {
        let dir = tempfile::tempdir().expect("a folder");
        let all_said = dir.path().join("all-said");
        let moves = format!(
            "echo more >&2; echo talk >&2; sleep 0.1; echo more >&2; sleep 0.1; echo more >&2; : >{}",
            all_said.display()
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut listener = HeldUp { all_said, held: false };
        let got = runtime.block_on(sh(&moves).stall(STILL).run_heard(&mut listener));
        assert!(got.is_ok(), "{got:?}");
    };
    // Which of two that are ready is taken first is by chance. Each stands still on a thread of its own.
    let rounds: Vec<_> = (0..4).map(|_| std::thread::spawn(round)).collect();
    for round in rounds {
        round.join().expect("it is not blamed");
    }
}

#[tokio::test]
async fn a_flood_is_cut_off_on_stdout_and_bounded_on_stderr() {
    let got = sh("yes").stdout_bytes_max(1 << 20).run().await;
    assert!(matches!(got, Err(ExecError::TooMuchOutput { .. })), "{got:?}");
    let got = sh("head -c 5000000 /dev/zero | tr '\\0' 'x' >&2; echo end >&2").run().await.expect("it runs");
    assert!(got.stderr_tail.len() <= STDERR_TAIL_BYTES && got.stderr_tail.ends_with("end"));
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipe_does_not_hold_us() {
    let started = Instant::now();
    let got = sh("sleep 90 & echo started").run().await.expect("it runs");
    assert_eq!(got.stdout, b"started\n");
    assert!(started.elapsed() < Duration::from_mins(1));
}

#[tokio::test]
async fn standard_input_reaches_the_program_and_a_missing_program_is_named() {
    let got = Cmd::new("/bin/cat").stdin("hello").run().await.expect("it runs");
    assert_eq!(got.stdout, b"hello");
    let said = Cmd::new("/nowhere/tool").run().await.expect_err("there is none").to_string();
    assert_eq!(said, "cannot start `/nowhere/tool`");
}

#[tokio::test]
async fn the_environment_is_empty_but_for_what_was_given() {
    let got = Cmd::new("/usr/bin/env").env("A", "b").run().await.expect("it runs");
    assert_eq!(got.stdout_text(), "A=b\nLC_ALL=C\n");
}

#[tokio::test]
async fn a_program_that_its_listener_has_heard_enough_of_is_ended_at_once() {
    let mut heard = Counts(0);
    let started = std::time::Instant::now();
    // Progress in the same breath does not save it.
    let script = "printf 'more\\nstop me\\nmore\\n' >&2; sleep 600";
    let got = sh(script).run_heard(&mut heard).await;
    assert!(matches!(&got, Err(ExecError::Stopped { last_words, .. }) if last_words == "stop me"), "{got:?}");
    assert!(started.elapsed() < Duration::from_mins(1));
}

#[tokio::test]
async fn of_a_program_that_prints_without_end_the_end_is_kept() {
    let got = sh("head -c 3000000 /dev/zero; echo; echo last words").stdout_tail(100).run().await;
    let got = got.expect("it runs").success().expect("it is no error");
    assert_eq!(got.stdout.len(), 100);
    assert!(got.stdout.ends_with(b"\0\nlast words\n"), "{:?}", got.stdout);
}

/// Says a line and reads one.
async fn echo(cmd: Cmd) -> Result<String, ExecError> {
    cmd.talk(async |mut out, mut input| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        input.write_all(b"word\n").await?;
        let mut heard = [0; 5];
        out.read_exact(&mut heard).await?;
        Ok(String::from_utf8_lossy(&heard).into_owned())
    })
    .await
}

#[tokio::test]
async fn a_program_is_asked_and_answers_and_its_end_is_not_waited_for() {
    let began = Instant::now();
    assert_eq!(echo(sh("cat; exec sleep 600")).await.expect("it answers"), "word\n");
    assert!(began.elapsed() < Duration::from_mins(1));
}

#[tokio::test]
async fn a_program_that_does_not_answer_is_an_error_at_its_deadline_or_its_end() {
    let silent = echo(sh("sleep 30").deadline(Duration::from_millis(100))).await;
    assert!(matches!(silent, Err(ExecError::Deadline { .. })), "{silent:?}");
    let ended = echo(sh("exit 0")).await;
    assert!(matches!(ended, Err(ExecError::Lost { .. })), "{ended:?}");
    let absent = echo(Cmd::new("/nowhere/at/all")).await;
    assert!(matches!(absent, Err(ExecError::Start { .. })), "{absent:?}");
}

#[tokio::test]
async fn a_program_that_stays_when_nobody_asks_any_more_is_ended() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let script = format!("echo $$ >{}; cat; sleep 600", file.path().display());
    assert_eq!(echo(sh(&script)).await.expect("it answers"), "word\n");
    let id = std::fs::read_to_string(file.path()).expect("readable");
    let process = Path::new("/proc").join(id.trim());
    let until = Instant::now() + Duration::from_mins(1);
    while process.exists() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!process.exists(), "{}", process.display());
}
