//! When a folder has news.

use nixfleet_trust::check::entry::HostIdentity;
use nixfleet_trust::key::PublicKey;

use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
const LATEST: &str = "channels/stable/latest";
/// Far longer than a thread that may end takes to do so.
const LONG: Duration = Duration::from_mins(1);

fn folder(path: &Path) -> Folder {
    let me =
        HostIdentity { name: "web-1".parse().expect("a name"), key: PublicKey::read(KEY).expect("a key") };
    Folder::new(path, &Looker { channel: "stable".parse().expect("a name"), me })
}

fn put(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::make_dir(path.parent().expect("below the folder")).expect("made");
    fs::write_atomic(&path, bytes).expect("written");
}

async fn read_latest(folder: &mut Folder) -> Result<Got, NoAnswer> {
    folder.begin(Connection::Any);
    folder.get(Wanted { path: LATEST, bytes_max: layout::LATEST_LEN_MAX, known: None }).await
}

#[tokio::test]
async fn only_a_release_that_is_there_as_a_whole_and_was_not_read_yet_has_come() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut folder = folder(dir.path());
    assert!(!folder.has_come().await, "nothing is there");
    put(dir.path(), LATEST, b"7\n");
    assert!(!folder.has_come().await, "it came before what it names");
    put(dir.path(), "channels/stable/7/release.json", b"{}");
    assert!(!folder.has_come().await, "this host's entry is missing");
    put(dir.path(), "channels/stable/7/hosts/web-1.json", b"{}");
    assert!(folder.has_come().await);
    put(dir.path(), LATEST, b"7");
    assert!(!folder.has_come().await, "its number may go on");
    put(dir.path(), LATEST, b"7\n");
    assert!(matches!(read_latest(&mut folder).await, Ok(Got::Bytes { .. })));
    assert!(!folder.has_come().await, "it was read");
    put(dir.path(), "channels/stable/8/release.json", b"{}");
    put(dir.path(), "channels/stable/8/hosts/web-1.json", b"{}");
    put(dir.path(), LATEST, b"8\n");
    assert!(folder.has_come().await);
}

#[tokio::test]
async fn a_reading_that_was_given_up_for_a_newer_question_does_not_stand_in_its_way() {
    let dir = tempfile::tempdir().expect("a folder");
    put(dir.path(), LATEST, b"7\n");
    let mut folder = folder(dir.path());
    folder.let_end = LONG;
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let given_up = timeout(Duration::from_millis(1), folder.apart(move || wait.recv().is_ok())).await;
    assert!(given_up.is_err(), "it goes on, and nobody waits for it");
    let ended = async {
        tokio::task::yield_now().await;
        drop(end);
    };
    let (read, ()) = tokio::join!(read_latest(&mut folder), ended);
    assert!(matches!(read, Ok(Got::Bytes { .. })));
}

#[tokio::test]
async fn while_a_reading_hangs_there_is_no_second_one() {
    let dir = tempfile::tempdir().expect("a folder");
    put(dir.path(), LATEST, b"7\n");
    let mut folder = folder(dir.path());
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let _ = timeout(Duration::from_millis(1), folder.apart(move || wait.recv().is_ok())).await;
    for _ in 0..2 {
        assert!(matches!(read_latest(&mut folder).await, Err(NoAnswer::Unreachable { .. })));
    }
    drop(end);
    folder.let_end = LONG;
    assert!(read_latest(&mut folder).await.is_ok(), "it has come to its end");
}
