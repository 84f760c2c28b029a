//! Against a manager of our own at the other end of the socket, which speaks the real protocol and misbehaves by script.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use proptest::prelude::*;
use tokio::net::UnixListener;

use super::wire::{Value, message};
use super::*;
use crate::tools::Tools;
use crate::tools::systemd::{CommandLine, StartError, WhenFailed};
use crate::tools::tests::{SYSTEMD, replay, tools};

/// What the manager does with a client.
#[derive(Debug, Clone)]
enum Story {
    /// Closes the connection before anything was said.
    Deaf,
    /// Does not accept who we say we are.
    Rejects,
    /// Says what a real one said, in answer to whatever it is asked.
    Says(Vec<u8>),
    /// The same, and hangs up.
    HangsUpAfter(Vec<u8>),
    /// Says more and more.
    Floods,
}

const ACCEPTS: &[u8] = b"OK 0123456789abcdef0123456789abcdef\r\n";

/// What the manager said on its socket, from accepting the client on.
fn heard(version: &str, case: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tools");
    std::fs::read(folder.join(format!("bus-{version}-{case}.heard"))).expect("it was recorded")
}

/// The recording up to its answer, which is included: the manager is gone before the job is over.
fn without_the_end(recording: &[u8]) -> Vec<u8> {
    let mut at = recording.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    loop {
        let beginning: &[u8; wire::BEGINNING] = recording[at..].first_chunk().expect("an answer");
        let end = at + wire::length(beginning).expect("a length");
        if wire::read(&recording[at..end]).expect("well-formed").reply_to == Some(SERIAL) {
            return recording[..end].to_vec();
        }
        at = end;
    }
}

/// Serves one client after the other at a socket in the folder.
fn manager(folder: &Path, story: Story) -> PathBuf {
    let path = folder.join("private");
    let listener = UnixListener::bind(&path).expect("a socket");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            tokio::spawn(serve(stream, story.clone()));
        }
    });
    path
}

async fn serve(mut stream: UnixStream, story: Story) {
    let mut asked = [0; 4096];
    let mut ask = async |stream: &mut UnixStream| drop(stream.read(&mut asked).await);
    let said = match story {
        Story::Deaf => return,
        Story::Rejects => b"REJECTED EXTERNAL\r\n".to_vec(),
        Story::Floods => ACCEPTS.to_vec(),
        Story::Says(ref said) | Story::HangsUpAfter(ref said) => said.clone(),
    };
    ask(&mut stream).await;
    let line = said.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    stream.write_all(&said[..line]).await.expect("a client");
    ask(&mut stream).await;
    // A client that has heard enough goes away in the middle, as it may.
    let _ = stream.write_all(&said[line..]).await;
    match story {
        Story::Deaf | Story::Rejects | Story::HangsUpAfter(_) => {}
        Story::Says(_) => ask(&mut stream).await,
        Story::Floods => {
            let text = "x".repeat(1 << 20);
            let noise = message(4, 1, &[(3, Value::Text(&text))], &[]).expect("a message");
            while stream.write_all(&noise).await.is_ok() {}
        }
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn unit() -> TransientUnit {
    let line = |program: &str| CommandLine::new(Path::new(program)).expect("plain");
    TransientUnit {
        name: "nixfleet-switch-1.service".parse().expect("a name"),
        run: line("/bin/agent").arg("run-recorded").and_then(|line| line.arg("switch")).expect("plain"),
        on_end: Some(line("/bin/agent").arg("record-end").expect("plain")),
        env: vec![("NIXOS_INSTALL_BOOTLOADER".to_owned(), "0".parse().expect("plain"))],
        run_at_most: Some(Duration::from_millis(90_500)),
        stop_within: Some(Duration::ZERO),
        when_failed: WhenFailed::Forget,
    }
}

/// Programs of systemd that leave a trace: `systemd-run` a file, and `systemctl show` says this of any unit.
fn traced(folder: &Path, socket: PathBuf, shown: &str) -> Tools {
    let program = |name: &str, script: &str| {
        let path = folder.join(name);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).write(true).mode(0o755).open(&path).expect("a file");
        file.write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).expect("written");
        path
    };
    Tools {
        systemd_run: program("systemd-run", &format!("echo started >> '{}'", trace(folder).display())),
        systemctl: program("systemctl", &format!("printf '{shown}'")),
        journalctl: program("journalctl", "echo 'a.service: Failed to locate executable'"),
        manager: socket,
        ..tools()
    }
}

fn trace(folder: &Path) -> PathBuf {
    folder.join("trace")
}

const NOT_LOADED: &str = "LoadState=not-found\\nActiveState=inactive\\nSubState=dead\\n";
const RUNNING: &str = "LoadState=loaded\\nActiveState=active\\nSubState=running\\n";

#[tokio::test]
async fn both_versions_list_their_units() {
    for (version, count) in [("252", 132), ("257", 139)] {
        let folder = folder();
        let socket = manager(folder.path(), Story::Says(heard(version, "list-units")));
        let units = list_units(&socket).await.expect("a list");
        assert_eq!(units.len(), count, "{version}");
        let find = |name: &str| units.iter().find(|unit| unit.name.as_str() == name).expect("it is listed");
        let journal = find("systemd-journald.service");
        assert_eq!((journal.load.as_str(), &journal.active), ("loaded", &ActiveState::Active));
        assert_eq!(journal.sub, "running");
        assert_eq!(
            (&find("rescue.target").active, find("-.mount").sub.as_str()),
            (&ActiveState::Inactive, "mounted")
        );
    }
}

#[tokio::test]
async fn both_versions_tell_when_they_started() {
    for (version, micros) in [("252", 38_614_382_708), ("257", 38_605_929_628)] {
        let folder = folder();
        let socket = manager(folder.path(), Story::Says(heard(version, "userspace-start")));
        assert_eq!(userspace_start(&socket).await.expect("a time"), micros, "{version}");
    }
}

#[tokio::test]
async fn both_versions_refuse_with_a_name_and_a_reason() {
    for version in SYSTEMD {
        let missing = folder();
        let socket = manager(missing.path(), Story::Says(heard(version, "stop-missing")));
        let stopped = stop_soon(&socket, &"absent.timer".parse().expect("a name")).await;
        let Err(BusError::Refused(said)) = stopped else { panic!("{stopped:?}") };
        assert_eq!(said, "Unit absent.timer not loaded. (org.freedesktop.systemd1.NoSuchUnit)");
        let taken = folder();
        let socket = manager(taken.path(), Story::Says(heard(version, "start-taken")));
        let started = start(&socket, &unit()).await;
        let Err(BusError::Refused(said)) = started else { panic!("{started:?}") };
        assert!(said.ends_with("fragment file. (org.freedesktop.systemd1.UnitExists)"), "{said}");
    }
}

#[tokio::test]
async fn both_versions_tell_the_end_of_a_job_amid_much_else() {
    for version in SYSTEMD {
        let well = folder();
        let socket = manager(well.path(), Story::Says(heard(version, "start")));
        start(&socket, &unit()).await.expect("it was started");
        let armed = folder();
        let socket = manager(armed.path(), Story::Says(heard(version, "start-timer")));
        start_at(&socket, &unit(), Duration::from_secs(9)).await.expect("it was armed");
        let badly = folder();
        let socket = manager(badly.path(), Story::Says(heard(version, "start-no-program")));
        let ended = start(&socket, &unit()).await;
        assert!(matches!(&ended, Err(BusError::JobFailed(result)) if result == "failed"), "{ended:?}");
        let stopped = folder();
        let socket = manager(stopped.path(), Story::Says(heard(version, "stop")));
        stop_soon(&socket, &"later.timer".parse().expect("a name")).await.expect("it was stopped");
    }
}

#[tokio::test]
async fn an_answer_of_another_kind_is_none() {
    let folder = folder();
    let socket = manager(folder.path(), Story::Says(heard("257", "list-units")));
    assert!(matches!(userspace_start(&socket).await, Err(BusError::Unanswered(_))));
    let stopped = stop_soon(&socket, &"a.timer".parse().expect("a name")).await;
    assert!(matches!(stopped, Err(BusError::Unanswered(_))), "{stopped:?}");
}

#[tokio::test]
async fn a_manager_that_is_not_there_or_does_not_accept_us_was_not_asked() {
    let folder_of = folder();
    let absent = start(&folder_of.path().join("absent"), &unit()).await;
    assert!(matches!(absent, Err(BusError::NotAsked(_))), "{absent:?}");
    for story in [Story::Deaf, Story::Rejects] {
        let folder = folder();
        let started = start(&manager(folder.path(), story), &unit()).await;
        assert!(matches!(started, Err(BusError::NotAsked(_))), "{started:?}");
    }
}

#[tokio::test]
async fn a_manager_that_says_more_than_is_wanted_is_not_listened_to() {
    let folder = folder();
    let flooded = list_units(&manager(folder.path(), Story::Floods)).await;
    assert!(matches!(&flooded, Err(BusError::Unanswered(why)) if why == "it says too much"), "{flooded:?}");
}

#[tokio::test]
async fn what_was_not_asked_or_was_refused_is_left_to_the_program() {
    for story in [Story::Deaf, Story::Rejects, Story::Says(heard("257", "start-taken"))] {
        let folder = folder();
        let tools = traced(folder.path(), manager(folder.path(), story.clone()), NOT_LOADED);
        tools.run_unit(&unit()).await.expect("the program started it");
        tools.run_unit_at(&unit(), Duration::from_secs(9)).await.expect("the program armed it");
        let started = std::fs::read_to_string(trace(folder.path())).expect("a trace");
        assert_eq!(started, "started\nstarted\n", "{story:?}");
    }
}

#[tokio::test]
async fn what_may_have_been_started_is_looked_for_and_never_started_again() {
    let taken = without_the_end(&heard("257", "start"));
    assert!(taken.len() > 100 && taken.len() < heard("257", "start").len());
    let cut = taken[..taken.len() - 1].to_vec();
    for story in [ACCEPTS.to_vec(), cut, taken].map(Story::HangsUpAfter) {
        for (shown, is_there) in [(RUNNING, true), (NOT_LOADED, false)] {
            let folder = folder();
            let tools = traced(folder.path(), manager(folder.path(), story.clone()), shown);
            let started = tools.run_unit(&unit()).await;
            assert!(!trace(folder.path()).exists(), "{story:?} was repeated by a program");
            match started {
                Ok(()) => assert!(is_there, "{story:?}: it is not there"),
                Err(StartError::Unsure { .. }) => assert!(!is_there, "{story:?}: it is there"),
                Err(other) => panic!("{story:?}: {other}"),
            }
        }
    }
}

#[tokio::test]
async fn a_job_that_fails_is_told_with_the_last_words_of_its_unit() {
    let folder = folder();
    let tools = traced(
        folder.path(),
        manager(folder.path(), Story::Says(heard("257", "start-no-program"))),
        NOT_LOADED,
    );
    let said = tools.run_unit(&unit()).await.expect_err("its job failed").to_string();
    assert!(said.contains("ended with `failed`") && said.ends_with("Failed to locate executable"), "{said}");
    assert!(!trace(folder.path()).exists(), "it was repeated by a program");
}

/// The properties as text, in an order of their own.
fn shown(properties: &Properties<'_>) -> Vec<String> {
    let mut all: Vec<String> = properties.iter().map(|(key, value)| format!("{key}={value}")).collect();
    all.sort();
    all
}

#[test]
fn a_service_has_its_limits_its_record_and_its_program() {
    let expected = [
        "CollectMode=\"inactive-or-failed\"",
        "Description=\"/bin/agent run-recorded switch\"",
        "Environment=[\"NIXOS_INSTALL_BOOTLOADER=0\"]",
        "ExecStart=[(\"/bin/agent\", [\"/bin/agent\", \"run-recorded\", \"switch\"], false)]",
        "ExecStopPost=[(\"/bin/agent\", [\"/bin/agent\", \"record-end\"], false)]",
        "RuntimeMaxUSec=uint64 90500000",
        "TimeoutStopUSec=uint64 1000",
        "Type=\"exec\"",
    ];
    assert_eq!(shown(&transient::service(&unit())), expected);
}

#[test]
fn a_timer_counts_from_the_start_of_the_manager_and_is_gone_after_it() {
    let expected = [
        "AccuracyUSec=uint64 100000",
        "CollectMode=\"inactive-or-failed\"",
        "Description=\"/bin/agent run-recorded switch\"",
        "RemainAfterElapse=false",
        "TimersMonotonic=[(\"OnStartupSec\", uint64 61234000)]",
    ];
    assert_eq!(shown(&transient::timer(&unit(), Duration::from_micros(61_234_567))), expected);
}

proptest! {
    #[test]
    fn no_limit_is_ever_unlimited(micros in any::<u64>()) {
        let limited = TransientUnit { run_at_most: Some(Duration::from_micros(micros)), ..unit() };
        let service = transient::service(&limited);
        let (_, limit) = service.iter().find(|(key, _)| *key == "RuntimeMaxUSec").expect("it is limited");
        let limit = u64::try_from(limit).expect("a time");
        // Its milliseconds, which are what the program is given as well.
        prop_assert!(limit > 0 && (limit <= micros || limit == 1000));
        prop_assert!(micros - limit.min(micros) < 1000);
    }

    #[test]
    fn no_name_and_no_state_stops_the_reader(name in any::<String>(), state in any::<String>()) {
        let read = unit_state(&name, state.clone(), &state, state.clone());
        prop_assert_eq!(read.is_ok(), name.parse::<UnitName>().is_ok());
    }

    #[test]
    fn what_is_written_is_read(
        serial in any::<u32>(), member in "[A-Za-z]{1,200}", interface in "[a-z]{1,9}\\.[a-z]{1,9}", text in "[^\0]*",
    ) {
        let body = (text.as_str(), serial);
        let bytes = wire::call(1, "/a/b", (&interface, &member), &body).expect("it can be written");
        let length = wire::length(bytes.first_chunk().expect("a beginning")).expect("a length");
        prop_assert_eq!(length, bytes.len());
        let heard = wire::read(&bytes).expect("well-formed");
        prop_assert_eq!((heard.kind, heard.reply_to), (Kind::Other, None));
        prop_assert_eq!((heard.interface.as_str(), heard.member.as_str()), (interface.as_str(), member.as_str()));
        prop_assert_eq!(heard.body::<(String, u32)>().expect("of its type"), (text, serial));
        prop_assert!(heard.body::<(u32, String)>().is_err());
    }

    #[test]
    fn no_bytes_stop_the_reader(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_as_any(&noise);
    }

    #[test]
    fn no_damage_stops_the_reader(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let recording = without_the_end(&heard("257", "start"));
        let line = ACCEPTS.len();
        let mut bytes = recording[line..].to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        read_as_any(&bytes);
        read_as_any(&bytes[..cut.index(bytes.len())]);
    }
}

#[test]
fn the_corpus_is_read_without_a_panic() {
    replay("bus-message", read_as_any);
}
