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
    let locks = std::fs::read_to_string("/proc/locks").expect("Linux has it");
    assert_eq!(flock_holders(&locks, held.inode()), [i32::try_from(std::process::id()).expect("small")]);
    assert_eq!(named_holder(&path), None, "it has not said so");
    held.name_holder();
    assert_eq!(named_holder(&path), Some(i32::try_from(std::process::id()).expect("small")));
    assert!(is_locked(&path));
    drop(held);
    assert!(!is_locked(&path) && named_holder(&path).is_none());
    assert!(Lock::try_take(&path).expect("no error").is_some());
}

#[test]
fn waiters_shared_locks_and_other_files_are_no_holders() {
    let text = "1: FLOCK  ADVISORY  WRITE 10 00:2e:7 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 11 00:2e:7 0 EOF\n\
                2: FLOCK  ADVISORY  READ 12 00:2e:7 0 EOF\n3: POSIX  ADVISORY  WRITE 13 00:2e:7 0 EOF\n\
                4: FLOCK  ADVISORY  WRITE 14 00:2e:77 0 EOF\nrubbish\n";
    assert_eq!(flock_holders(text, 7), [10]);
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

#[test]
fn a_pipe_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a pipe");
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
        (0o620, Some(Writers::Group)),
        (0o664, Some(Writers::Group)),
        (0o602, Some(Writers::Everybody)),
        (0o666, Some(Writers::Everybody)),
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
