//! Wakes when names in a folder change: the parent of a link is watched, as a watch on the link itself sees nothing.
//!
//! A wake-up says only "look again": events may be lost (overflow) or doubled, so callers read the world afterwards
//! and keep a slow poll as the net. Linux tells by inotify. Elsewhere the folders are looked at (`looks`): kqueue would
//! need unsafe code, and nothing that is waited for here is in more of a hurry than the second that this may cost.

#[cfg(target_os = "linux")]
mod inotify;
#[cfg(any(test, not(target_os = "linux")))]
#[cfg_attr(target_os = "linux", allow(unreachable_pub, reason = "it is the watch of the other platforms"))]
mod looks;

#[cfg(target_os = "linux")]
pub use inotify::FolderWatch;
#[cfg(not(target_os = "linux"))]
pub use looks::Looks as FolderWatch;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_mins(1);
    const QUIET: Duration = Duration::from_millis(120);

    /// The same story for both ways of watching.
    macro_rules! a_watch {
        ($name:ident, $watch:ty) => {
            mod $name {
                use super::*;

                #[tokio::test]
                async fn a_link_that_flips_by_rename_or_anew_wakes_the_watcher() {
                    let dir = tempfile::tempdir().expect("a folder");
                    let link = dir.path().join("current-system");
                    let mut watch = <$watch>::new(&[dir.path()]).expect("watched");
                    assert!(timeout(QUIET, watch.changed()).await.is_err(), "nothing happened yet");
                    crate::fs::link_atomic(Path::new("/a"), &link).expect("made");
                    timeout(SOON, watch.changed()).await.expect("woken").expect("no error");
                    std::fs::remove_file(&link).expect("removed");
                    std::os::unix::fs::symlink("/b", &link).expect("made anew");
                    timeout(SOON, watch.changed()).await.expect("woken").expect("no error");
                }

                #[tokio::test]
                async fn a_change_before_the_wait_is_not_lost() {
                    let dir = tempfile::tempdir().expect("a folder");
                    let mut watch = <$watch>::new(&[dir.path()]).expect("watched");
                    crate::fs::write_atomic(&dir.path().join("end.json"), b"{}").expect("written");
                    timeout(SOON, watch.changed()).await.expect("woken").expect("no error");
                }

                #[tokio::test]
                async fn a_file_that_grows_wakes_the_watcher_and_so_does_the_second_folder() {
                    let (one, two) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
                    let at = two.path().join("journal.jsonl");
                    let mut file = crate::fs::open_append(&at).expect("made");
                    let mut watch = <$watch>::new(&[one.path(), two.path()]).expect("watched");
                    crate::fs::append_synced(&mut file, &at, b"a line\n").expect("appended");
                    drop(file);
                    timeout(SOON, watch.changed()).await.expect("woken").expect("no error");
                }

                #[tokio::test]
                async fn a_folder_that_is_not_there_cannot_be_watched() {
                    assert!(<$watch>::new(&[Path::new("/nowhere/at/all")]).is_err());
                }
            }
        };
    }

    #[cfg(target_os = "linux")]
    a_watch!(by_inotify, crate::watch::inotify::FolderWatch);
    a_watch!(by_looking, crate::watch::looks::Looks);
}
