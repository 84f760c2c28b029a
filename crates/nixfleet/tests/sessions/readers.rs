//! Whoever reads the folder at any moment, and whoever ends a writer at any moment.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nixfleet::served::Served;
use nixfleet_core::model::names::{ChannelName, Seq};
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::exec::ExecError;
use nixfleet_trust::check::entry;
use nixfleet_trust::trust::Trust;

use crate::support::{Session, system};

/// What a host and an auditor see at this moment: the number of a release that is whole and signed, or nothing yet.
fn look(served: &Served, root: &[u8]) -> Option<Seq> {
    let channel: ChannelName = "stable".parse().expect("a name");
    let now = UnixMs::new(nixfleet_sys::clock::unix_ms()).expect("a time");
    let seq = served.latest(&channel).expect("`latest` is whole")?;
    let bytes = served.release(&channel, seq).expect("what `latest` names is there");
    let trust = Trust::begin(root).expect("the root");
    let release = trust.accept_release(&channel, &bytes, now).expect("it is signed").release;
    let hosts = served.hosts(&channel, seq).expect("its hosts");
    assert_eq!(hosts.len(), usize::try_from(release.hosts).expect("small"), "all entries are there");
    for host in &hosts {
        entry::entry(&release, &served.entry(&channel, seq, host).expect("its entry"))
            .expect("it is the release's");
    }
    Some(seq)
}

#[test]
fn a_reader_at_any_moment_finds_a_whole_signed_release() {
    let session = Session::initialised();
    let served = Served::new(session.path("served"));
    let root = session.read("served/root/1.json").into_bytes();
    let (stop, looked) = (AtomicBool::new(false), AtomicU32::new(0));
    let (looks, seen) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut looks, mut seen) = (0_u32, BTreeSet::new());
            while !stop.load(Ordering::SeqCst) {
                seen.extend(look(&served, &root));
                looks += 1;
                looked.store(looks, Ordering::SeqCst);
            }
            (looks, seen)
        });
        for _ in 0..8 {
            session.publish();
            // On a busy machine all could be published before the reader comes to its second look.
            let enough = looked.load(Ordering::SeqCst) + 3;
            while looked.load(Ordering::SeqCst) < enough && !reader.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // One look more after the last.
        stop.store(true, Ordering::SeqCst);
        reader.join().expect("no look finds anything else")
    });
    assert!(looks > 20 && seen.len() > 3, "{looks} looks saw {seen:?}");
    assert_eq!(look(&served, &root).map(Seq::get), Some(8));
}

/// Runs a verb and ends it after so long; whether it was ended.
fn ended_after(session: &Session, words: &[&str], after: Duration) -> bool {
    match session.verb(words).deadline(after).run_blocking() {
        Ok(_) => false,
        Err(ExecError::Deadline { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_build_or_signature_that_is_ended_at_any_moment_leaves_a_whole_release() {
    let session = Session::initialised();
    session.publish();
    let served = Served::new(session.path("served"));
    let root = session.read("served/root/1.json").into_bytes();
    let (closures, key) = (session.text("closures.json"), session.text("keys/release"));
    let build = ["release", "build", "--channel", "stable", "--path-info", &closures];
    let sign = ["release", "sign", "--channel", "stable", "--key", &key, "--yes"];
    let (mut ended, mut newest) = (0, 1);
    for after in (0..60).map(|step| Duration::from_micros(500 * step)) {
        for words in [&build[..], &sign[..]] {
            ended += usize::from(ended_after(&session, words, after));
            let seq = look(&served, &root).expect("something is published").get();
            assert!(seq >= newest, "what is published never goes back");
            newest = seq;
        }
    }
    assert!(ended > 20, "only {ended} were ended in the middle");
    // One that was killed while it waits for the disk has the lock until that is done.
    let until = Instant::now() + Duration::from_mins(2);
    while served.lock().is_err() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    session.describe(&[("web-1", &system('2', "2"))]);
    session.publish();
    assert!(look(&served, &root).expect("published").get() > newest);
    let left = std::fs::read_dir(session.path("served/channels/stable")).expect("a folder");
    let left: Vec<_> = left.map(|entry| entry.expect("readable").file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn two_writers_do_not_meet() {
    let session = Session::initialised();
    let served = Served::new(session.path("served"));
    let held = served.lock().expect("nobody else has it");
    let why = session.refused(&[
        "release",
        "build",
        "--channel",
        "stable",
        "--path-info",
        &session.text("closures.json"),
    ]);
    assert!(why.contains("another nixfleet is writing to"), "{why}");
    drop(held);
    session.build();
}
