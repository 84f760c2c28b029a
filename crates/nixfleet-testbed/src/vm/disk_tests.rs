//! The disk against a plain array: reads see the newest bytes, a cut leaves those of the last flush.

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Four blocks: small enough that random writes overlap.
const SIZE: usize = 4 * BLOCK;

#[derive(Debug, Clone)]
enum Act {
    Write { at: usize, len: usize, byte: u8 },
    Flush,
    Cut(Unflushed),
}

fn act() -> impl Strategy<Value = Act> {
    let write = (0..SIZE, 1..2 * BLOCK, any::<u8>()).prop_map(|(at, len, byte)| Act::Write {
        at,
        len: len.min(SIZE - at),
        byte,
    });
    let unflushed = prop_oneof![Just(Unflushed::Lost), Just(Unflushed::Kept)];
    prop_oneof![6 => write, 1 => Just(Act::Flush), 1 => unflushed.prop_map(Act::Cut)]
}

fn disk(image: &[u8]) -> (TempDir, Disk) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("image");
    crate::files::put(&file, image, 0o644).expect("written");
    let disk = Disk::new(&file, &dir.path().join("platter")).expect("a disk");
    (dir, disk)
}

fn whole(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    disk.read(0, &mut bytes).expect("inside");
    bytes
}

proptest! {
    #[test]
    fn reads_see_the_newest_bytes_and_a_cut_leaves_those_of_the_last_flush(acts in prop::collection::vec(act(), 1..40)) {
        let image: Vec<u8> = (0..SIZE).map(|i| u8::try_from(i % 251).expect("small")).collect();
        let (_dir, mut disk) = disk(&image);
        let (mut now, mut flushed) = (image.clone(), image);
        for act in acts {
            match act {
                Act::Write { at, len, byte } => {
                    disk.write(at as u64, &vec![byte; len]).expect("inside");
                    now[at..at + len].fill(byte);
                }
                Act::Flush => {
                    disk.flush().expect("flushed");
                    flushed.clone_from(&now);
                }
                Act::Cut(unflushed) => {
                    disk.cut(unflushed).expect("cut");
                    if unflushed == Unflushed::Kept { flushed.clone_from(&now) } else { now.clone_from(&flushed) }
                }
            }
            prop_assert!(whole(&disk) == now);
        }
    }

    #[test]
    fn a_mixed_cut_leaves_each_block_whole_either_old_or_new(seed in any::<u64>()) {
        let (_dir, mut disk) = disk(&[1; SIZE]);
        disk.write(0, &[2; SIZE]).expect("inside");
        let cut = disk.cut(Unflushed::Mixed { seed }).expect("cut");
        let after = whole(&disk);
        let new = after.chunks(BLOCK).filter(|block| block.iter().all(|byte| *byte == 2)).count();
        let old = after.chunks(BLOCK).filter(|block| block.iter().all(|byte| *byte == 1)).count();
        prop_assert_eq!(cut, Cut { lost: old, kept: new });
        prop_assert_eq!(old + new, SIZE / BLOCK);
    }
}

#[test]
fn what_is_written_through_survives_a_cut_and_takes_nothing_along() {
    let (_dir, mut disk) = disk(&[0; SIZE]);
    disk.write(0, &[1; BLOCK]).expect("inside");
    disk.write_through(BLOCK as u64, &[2; BLOCK]).expect("inside");
    assert_eq!(disk.cut(Unflushed::Lost).expect("cut"), Cut { lost: 1, kept: 0 });
    let after = whole(&disk);
    assert!(
        after[..BLOCK].iter().all(|byte| *byte == 0) && after[BLOCK..2 * BLOCK].iter().all(|byte| *byte == 2)
    );
}

#[test]
fn seeds_choose_differently() {
    let kept: std::collections::BTreeSet<Vec<bool>> =
        (0..8).map(|seed| (0..64).map(|block| chance(seed, block)).collect()).collect();
    assert_eq!(kept.len(), 8);
}

#[test]
fn what_lies_outside_of_the_disk_is_refused() {
    let (_dir, mut disk) = disk(&[0; SIZE]);
    assert!(disk.write(SIZE as u64 - 1, &[0; 2]).is_err());
    assert!(disk.read(u64::MAX, &mut [0; 2]).is_err());
    assert!(disk.write(SIZE as u64 - 1, &[0; 1]).is_ok());
}
