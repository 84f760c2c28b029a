use super::lock::{device_of, holders_of, locks_in};
use super::*;

#[test]
fn a_replaced_file_is_whole_private_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("state.json");
    write_atomic(&path, b"one").expect("written");
    write_atomic(&path, b"two").expect("replaced");
    assert_eq!(std::fs::read(&path).expect("readable"), b"two");
    assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 1);
}

#[test]
fn a_write_that_cannot_happen_leaves_the_old_file_and_says_what_was_tried() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("folder");
    std::fs::create_dir(&path).expect("made");
    let said = write_atomic(&path, b"x").expect_err("a folder cannot be replaced").to_string();
    assert!(said.starts_with("cannot replace `"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 1);
}

#[test]
fn a_link_moves_without_an_instant_of_absence() {
    let dir = tempfile::tempdir().expect("a folder");
    let link = dir.path().join("root");
    link_atomic(Path::new("/a"), &link).expect("made");
    link_atomic(Path::new("/b"), &link).expect("moved");
    assert_eq!(read_link(&link).expect("a link"), Path::new("/b"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_lock_has_one_holder_and_proc_locks_names_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("lock");
    let held = Lock::try_take(&path).expect("no error").expect("free");
    assert!(Lock::try_take(&path).expect("no error").is_none());
    let locks = proc_locks();
    let meta = std::fs::metadata(&path).expect("there");
    assert_eq!(flock_holders(&locks, &meta), [i32::try_from(std::process::id()).expect("small")]);
    assert_eq!(named_holder(&path), None, "it has not said so");
    held.name_holder();
    assert_eq!(named_holder(&path), Some(i32::try_from(std::process::id()).expect("small")));
    assert!(is_locked(&path));
    drop(held);
    assert!(!is_locked(&path) && named_holder(&path).is_none());
    assert!(Lock::try_take(&path).expect("no error").is_some());
}

/// A list of locks as the kernel gives it: a page at each read, whatever the room.
struct Pages(std::vec::IntoIter<String>);

impl Read for Pages {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let page = self.0.next().unwrap_or_default();
        into[..page.len()].copy_from_slice(page.as_bytes());
        Ok(page.len())
    }
}

#[test]
fn a_lock_that_one_reading_of_several_pages_missed_is_found_and_its_holder_named_once() {
    let lock = |pid: u32| format!("1: FLOCK  ADVISORY  WRITE {pid} 00:2e:567 0 EOF\n");
    // As if somebody else's lock on the first page was given back between the two reads, and ours moved to that page.
    let readings = [vec![lock(1), lock(3)], vec![lock(1), lock(2), lock(3)], vec![lock(1), lock(2), lock(3)]];
    let count = std::cell::Cell::new(0);
    let text = locks_in(|| {
        let reading = readings[count.get()].clone();
        count.set(count.get() + 1);
        Ok(Pages(reading.into_iter()))
    });
    let mut found = holders_of(&text, (device_of(0, 0x2e), 567));
    found.sort_unstable();
    assert_eq!(found, [1, 2, 3]);

    // A list of one page is as it was at one moment.
    let once = locks_in(|| Ok(Pages(vec![lock(7)].into_iter())));
    assert_eq!(once, lock(7));
    assert_eq!(locks_in(|| Err::<Pages, _>(io::ErrorKind::NotFound.into())), "");
}

#[test]
fn a_lock_is_not_taken_through_a_link_and_a_pipe_in_its_place_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let (lock, other) = (dir.path().join("lock"), dir.path().join("other"));
    link_atomic(&other, &lock).expect("made");
    let refused = Lock::try_take(&lock).expect_err("a link");
    assert!(refused.to_string().starts_with("cannot open the lock `"), "{refused}");
    assert!(!other.exists(), "nothing is made at its end");
    write_atomic(&other, b"x").expect("written");
    assert!(Lock::try_take(&lock).is_err());
    remove(&lock).expect("removed");
    pipe(&lock);
    assert!(Lock::try_take(&lock).is_err());
}

#[test]
fn what_has_a_second_name_is_not_given_away() {
    let dir = tempfile::tempdir().expect("a folder");
    let (lock, other) = (dir.path().join("lock"), dir.path().join("other"));
    write_atomic(&other, b"x").expect("written");
    std::fs::hard_link(&other, &lock).expect("linked");
    let ours = owner(&other).expect("there");
    let held = Lock::try_take(&lock).expect("no error").expect("free");
    held.give_to(&lock, ours).expect("it is theirs already");
    let refused =
        held.give_to(&lock, Owner { user: ours.user + 1, group: ours.group }).expect_err("two names");
    assert_eq!(refused.source.to_string(), "it is not a regular file of one name");
    assert_eq!(owner(&other).expect("there"), ours);
}

#[test]
fn a_link_is_not_followed_to_the_owner_of_another_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let link = dir.path().join("link");
    link_atomic(Path::new("/nowhere/at/all"), &link).expect("made");
    let ours = rustix::process::geteuid().as_raw();
    assert_eq!(owner(&link).expect("it is there itself").user, ours);
}

#[test]
fn waiters_shared_locks_and_other_files_are_no_holders() {
    // 00:2e, as `stat` says it.
    const DEVICE: u64 = 46;
    let text = "1: FLOCK  ADVISORY  WRITE 10 00:2e:7 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 11 00:2e:7 0 EOF\n\
                2: FLOCK  ADVISORY  READ 12 00:2e:7 0 EOF\n3: POSIX  ADVISORY  WRITE 13 00:2e:7 0 EOF\n\
                4: FLOCK  ADVISORY  WRITE 14 00:2e:77 0 EOF\nrubbish\n";
    assert_eq!(holders_of(text, (DEVICE, 7)), [10]);
}

#[test]
fn a_file_of_the_same_number_on_another_disk_has_other_holders() {
    let text = "1: FLOCK  ADVISORY  WRITE 10 00:1a:7 0 EOF\n2: FLOCK  ADVISORY  WRITE 11 08:01:7 0 EOF\n\
                3: FLOCK  ADVISORY  WRITE 12 103:05:7 0 EOF\n4: FLOCK  ADVISORY  WRITE 13 00:17f:7 0 EOF\n";
    // The numbers of `stat --format=%d`: a tmpfs, `sda1`, `nvme0n1p5`, and the 383rd disk without a name.
    for (device, holder) in [(26, 10), (2049, 11), (66_309, 12), (1_048_703, 13)] {
        assert_eq!(holders_of(text, (device, 7)), [holder], "device {device}");
    }
    assert_eq!(holders_of(text, (27, 7)), [0_i32; 0]);
}

#[test]
fn a_new_folder_appears_whole_or_not_at_all_and_never_over_another() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("42");
    let folder = NewFolder::begin(&path).expect("begun");
    folder.make_dir("hosts").expect("made");
    folder.write("hosts/a.json", b"one").expect("written");
    assert!(folder.write("hosts/a.json", b"two").is_err(), "a file stands there already");
    assert!(!path.exists());
    folder.publish().expect("published");
    assert_eq!(std::fs::read(path.join("hosts/a.json")).expect("readable"), b"one");
    let second = NewFolder::begin(&path).expect("begun");
    second.write("x", b"x").expect("written");
    assert!(second.publish().is_err());
    assert_eq!(names_in(dir.path()).expect("listed"), ["42"], "nothing is left of what was refused");
    assert!(names_in(&dir.path().join("none")).expect("no folder, no names").is_empty());
}

#[test]
fn a_file_larger_than_its_bound_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("big");
    write_atomic(&path, &[0; 11]).expect("written");
    assert!(read_bounded(&path, 10).is_err());
    assert_eq!(read_bounded(&path, 11).expect("fits").len(), 11);
    assert_eq!(read_start(&path, 10).expect("its start").len(), 11, "one more than allowed, and no more");
    assert_eq!(read_start(&path, 5).expect("its start").len(), 6);
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_in_memory_is_told_from_what_is_not() {
    assert!(!is_in_memory(Path::new("/proc")));
    assert!(!is_in_memory(Path::new("/nowhere/at/all")));
    let mounts = std::fs::read_to_string("/proc/mounts").expect("Linux has it");
    let of = |kind: &str| {
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        fields.filter(|fields| fields[2] == kind).map(|fields| PathBuf::from(fields[1])).collect::<Vec<_>>()
    };
    for path in of("tmpfs") {
        assert!(is_in_memory(&path) || !path.exists(), "{}", path.display());
    }
}

fn pipe(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
}

#[test]
fn a_pipe_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("pipe");
    pipe(&path);
    let said = read_start(&path, 10).expect_err("not a file").source.to_string();
    assert_eq!(said, "it is not a regular file");
    assert!(read_start(dir.path(), 10).is_err());
}

#[test]
fn a_file_that_others_can_write_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("agent.toml");
    for (mode, who) in [
        (0o600, None),
        (0o444, None),
        (0o755, None),
        (0o620, Some(Others::Group(Can::Write))),
        (0o664, Some(Others::Group(Can::Write))),
        (0o602, Some(Others::Everybody(Can::Write))),
        (0o666, Some(Others::Everybody(Can::Write))),
    ] {
        write_atomic(&path, b"x").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        let link = dir.path().join("link");
        link_atomic(&path, &link).expect("made");
        let read = read_guarded(&link, 10);
        assert_eq!(read.is_ok(), who.is_none(), "{mode:o}");
        assert_eq!(others_who_write(&std::fs::metadata(&path).expect("there")), who, "{mode:o}");
    }
}

#[test]
fn whoever_can_read_a_file_is_told_apart_from_whoever_can_write_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("key");
    write_atomic(&path, b"x").expect("written");
    for (mode, who) in [
        (0o600, None),
        (0o622, None),
        (0o640, Some(Others::Group(Can::Read))),
        (0o604, Some(Others::Everybody(Can::Read))),
        (0o644, Some(Others::Everybody(Can::Read))),
    ] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        assert_eq!(others_who_read(&std::fs::metadata(&path).expect("there")), who, "{mode:o}");
    }
}
