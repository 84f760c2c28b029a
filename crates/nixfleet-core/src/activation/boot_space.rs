//! Whether the kernel and initrd of a system fit beside those that the boot loader keeps.
//!
//! A loader that runs out of room fails after the system is live; on GRUB it can then not even clean up, because it
//! copies before it removes (`facts/nixos.md` D5). So the room is counted before anything is changed. What is not
//! known is never counted as a need: a wrong refusal would keep a host from every update.

use std::collections::BTreeSet;

use crate::ids::StorePath;

/// Blocks for what is written beside kernels: an entry, the loader's own settings, and the temporary file of each.
const ENTRY_BLOCKS: u64 = 4;

/// A kernel or an initrd that a boot entry needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFile {
    /// The store path that it is in.
    pub store: StorePath,
    /// Its own name, such as `bzImage`.
    pub file: String,
    /// Its size, or a size that it has at least.
    pub bytes: u64,
}

/// A file that lies in the loader's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name there.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// When a loader drops the files that no entry needs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drops {
    /// First, as systemd-boot's builder does: their room can be used.
    BeforeCopying,
    /// At the end, as GRUB's and extlinux's do.
    AfterCopying,
}

/// The loader's folder of kernels, and the room on its file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderFolder {
    /// What is in it.
    pub stored: Vec<Stored>,
    /// When it is cleaned.
    pub drops: Drops,
    /// The smallest unit in which the file system gives room away.
    pub block_bytes: u64,
    /// What is free.
    pub free_bytes: u64,
}

/// What is lacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// What the new entry takes.
    pub need_bytes: u64,
    /// What can be had.
    pub free_bytes: u64,
}

impl BootFile {
    /// Whether this stored file is it.
    ///
    /// systemd-boot, GRUB and extlinux name the copy after the store path. Other loaders have names of their own:
    /// there the size must do, which errs on the side of not refusing.
    pub fn is(&self, stored: &Stored) -> bool {
        if stored.name.contains(".tmp") {
            return false;
        }
        match format!("{}/{}", crate::ids::STORE_DIR, stored.name).parse::<StorePath>() {
            Ok(named) => named.base().starts_with(self.store.base()) && named.base().contains(&self.file),
            Err(_) => stored.bytes == self.bytes,
        }
    }
}

impl LoaderFolder {
    /// Whether the file is there.
    pub fn has(&self, file: &BootFile) -> bool {
        self.stored.iter().any(|stored| file.is(stored))
    }

    /// `None` when an entry with the `wanted` files fits; `kept` are those of the entries that stay beside it.
    pub fn shortage(&self, wanted: &[BootFile], kept: &[BootFile]) -> Option<Shortage> {
        let block = self.block_bytes.max(1);
        let mut counted: Vec<&BootFile> = Vec::new();
        for file in wanted {
            let again = counted.iter().any(|other| (&other.store, &other.file) == (&file.store, &file.file));
            if !again && !self.has(file) {
                counted.push(file);
            }
        }
        let copies = counted
            .iter()
            .fold(0_u64, |sum, file| sum.saturating_add(file.bytes.div_ceil(block).saturating_mul(block)));
        let need_bytes = copies.saturating_add(ENTRY_BLOCKS.saturating_mul(block));
        let free_bytes = self.free_bytes.saturating_add(self.dropped_first(wanted, kept));
        (need_bytes > free_bytes).then_some(Shortage { need_bytes, free_bytes })
    }

    /// The bytes of what the loader drops before it copies.
    fn dropped_first(&self, wanted: &[BootFile], kept: &[BootFile]) -> u64 {
        match self.drops {
            Drops::AfterCopying => 0,
            Drops::BeforeCopying => {
                let needed = |stored: &&Stored| wanted.iter().chain(kept).any(|file| file.is(stored));
                let dropped = self.stored.iter().filter(|stored| !needed(stored));
                dropped.fold(0, |sum, stored| sum.saturating_add(stored.bytes))
            }
        }
    }
}

/// How many generations these entries of systemd-boot show: one has an entry for itself and one for each of its
/// specialisations (`nixos-generation-7-specialisation-kiosk.conf`), and may count its tries in their names
/// (`nixos-generation-7+2-1.conf`). Those of other profiles have other names.
pub fn generations_shown<'a>(entries: impl IntoIterator<Item = &'a str>) -> usize {
    let number = |entry: &'a str| {
        let after = entry.strip_prefix("nixos-generation-")?;
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        after[..end].parse::<u64>().ok()
    };
    entries.into_iter().filter_map(number).collect::<BTreeSet<_>>().len()
}

/// The indices of the entries that stay when one more is added at the end of `entries`.
///
/// A loader with a limit shows fewer entries than there are generations: then the oldest gives way to the new one.
pub fn entries_kept(generations: usize, entries: usize) -> std::ops::Range<usize> {
    if entries < generations {
        // The new one takes a place of the limit, and there is at least that one.
        generations - entries.saturating_sub(1).min(generations)..generations
    } else {
        0..generations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = 1 << 10;

    fn file(hash: char, name: &str, bytes: u64) -> BootFile {
        let store = format!("/nix/store/{}-{name}", hash.to_string().repeat(32));
        BootFile { store: store.parse().expect("well-formed"), file: "bzImage".into(), bytes }
    }

    fn stored(file: &BootFile) -> Stored {
        Stored { name: format!("{}-{}.efi", file.store.base(), file.file), bytes: file.bytes }
    }

    fn folder(stored: Vec<Stored>, drops: Drops, free_bytes: u64) -> LoaderFolder {
        LoaderFolder { stored, drops, block_bytes: 4 * KIB, free_bytes }
    }

    #[test]
    fn a_new_kernel_needs_its_size_and_a_known_one_only_its_entry() {
        let (old, new) = (file('a', "linux-6.12.1", 60 * KIB), file('b', "linux-6.12.2", 61 * KIB));
        let boot = folder(vec![stored(&old)], Drops::AfterCopying, 20 * KIB);
        assert_eq!(boot.shortage(std::slice::from_ref(&old), &[]), None);
        let short = boot.shortage(&[new], &[old]).expect("it does not fit");
        // 61 KiB are 16 blocks; four more for the entry.
        assert_eq!(short, Shortage { need_bytes: 80 * KIB, free_bytes: 20 * KIB });
    }

    #[test]
    fn what_only_old_entries_need_is_room_for_systemd_boot_and_none_for_grub() {
        let (old, new) = (file('a', "linux-6.12.1", 64 * KIB), file('b', "linux-6.12.2", 64 * KIB));
        let stale = stored(&file('c', "linux-6.11", 64 * KIB));
        let with = |drops| folder(vec![stored(&old), stale.clone()], drops, 16 * KIB);
        let ask =
            |drops| with(drops).shortage(std::slice::from_ref(&new), std::slice::from_ref(&old)).is_some();
        assert!(ask(Drops::AfterCopying) && !ask(Drops::BeforeCopying));
    }

    #[test]
    fn half_a_copy_is_no_copy_and_another_kernel_of_the_same_size_is_another() {
        let (old, new) = (file('a', "linux-6.12.1", 9), file('b', "linux-6.12.2", 9));
        let mut half = stored(&new);
        half.name.push_str(".tmp");
        let boot = folder(vec![stored(&old), half], Drops::AfterCopying, 0);
        assert!(boot.has(&old) && !boot.has(&new));
    }

    #[test]
    fn a_loader_with_names_of_its_own_is_recognised_by_the_size() {
        let kernel = file('a', "linux-6.12.1", 123_456);
        let boot = |bytes| {
            let named = Stored { name: "kernel-6.12.1-abcdef.efi".into(), bytes };
            folder(vec![named], Drops::AfterCopying, 0)
        };
        assert!(boot(123_456).has(&kernel) && !boot(123_457).has(&kernel));
    }

    #[test]
    fn the_oldest_entry_gives_way_only_where_there_is_a_limit() {
        assert_eq!(entries_kept(3, 3), 0..3);
        assert_eq!(entries_kept(10, 4), 7..10, "four entries, one of them the new one");
        assert_eq!(entries_kept(10, 1), 10..10);
        assert_eq!(entries_kept(10, 0), 10..10, "no entries that we can read: nothing is held to be kept");
        assert_eq!(entries_kept(2, 30), 0..2);
    }

    #[test]
    fn specialisations_are_entries_of_their_generation_and_do_not_hide_a_limit() {
        let mut entries = Vec::new();
        for generation in 41..=50 {
            entries.push(format!("nixos-generation-{generation}.conf"));
            for special in ["kiosk", "debug"] {
                entries.push(format!("nixos-generation-{generation}-specialisation-{special}.conf"));
            }
        }
        entries.extend(
            ["nixos-generation-50+2-1.conf", "nixos-web-generation-7.conf", "memtest.conf"].map(Into::into),
        );
        let shown = generations_shown(entries.iter().map(String::as_str));
        assert_eq!(shown, 10, "{} files", entries.len());
        assert_eq!(
            entries_kept(30, shown),
            21..30,
            "ten of thirty generations are shown, one of them the new one"
        );
    }

    proptest! {
        #[test]
        fn nothing_is_refused_that_fits_and_nothing_is_let_through_that_is_short_by_a_block(
            sizes in proptest::collection::vec(1_u64..200_000, 0..6), spare in 0_u64..20_000
        ) {
            let hashes = ['0', '1', '2', '3', '4', '5'];
            let wanted: Vec<BootFile> =
                sizes.iter().zip(hashes).map(|(bytes, hash)| file(hash, "linux", *bytes)).collect();
            // Counted in another way than the code: block by block.
            let mut blocks = 4;
            for bytes in &sizes {
                let mut left = *bytes;
                while left > 0 {
                    blocks += 1;
                    left = left.saturating_sub(4096);
                }
            }
            let need = blocks * 4096;
            prop_assert_eq!(folder(vec![], Drops::AfterCopying, need + spare).shortage(&wanted, &[]), None);
            let short = folder(vec![], Drops::AfterCopying, need - 1).shortage(&wanted, &[]);
            prop_assert_eq!(short.map(|short| short.need_bytes), Some(need));
        }

        #[test]
        fn cleaning_first_never_makes_a_shortage(
            sizes in proptest::collection::vec(1_u64..200_000, 3..6), free in 0_u64..800_000
        ) {
            let hashes = ['0', '1', '2', '3', '4', '5'];
            let all: Vec<BootFile> =
                sizes.iter().zip(hashes).map(|(bytes, hash)| file(hash, "linux", *bytes)).collect();
            let there: Vec<Stored> = all[1..].iter().map(stored).collect();
            let after = folder(there.clone(), Drops::AfterCopying, free).shortage(&all[..1], &all[1..2]);
            let first = folder(there, Drops::BeforeCopying, free).shortage(&all[..1], &all[1..2]);
            prop_assert!(after.is_some() || first.is_none());
        }
    }
}
