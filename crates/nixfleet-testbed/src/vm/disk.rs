//! The disk of a virtual machine, with a write cache that a power cut empties.
//!
//! What the machine writes is in the cache; a flush moves all of it to the platter. Both lie behind the image,
//! which many machines share and nobody changes. So a cut loses exactly what was never flushed, which no cache mode
//! of qemu does: with `writeback` a killed qemu leaves in the page cache, unflushed or not, all that it was given;
//! with `directsync` nothing is ever unflushed; with `unsafe` flushes mean nothing; and qcow2 loses new clusters and
//! keeps overwritten ones.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

/// What is written or lost as one: the block of the file system, and no drive tears less than its sector.
const BLOCK: usize = 4096;

/// What becomes of writes that were not flushed when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unflushed {
    /// All are lost, as in a drive that writes nothing back until it must.
    Lost,
    /// All are kept, as in a drive without a write cache: only what the kernel had not written is lost.
    Kept,
    /// Each block is lost or kept by chance, as in a drive that writes back in an order of its own.
    Mixed {
        /// The same seed chooses the same blocks.
        seed: u64,
    },
}

/// How much a power cut lost and kept of what was not flushed, in blocks of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Blocks that are as they were at the last flush.
    pub lost: usize,
    /// Blocks that were kept although nobody flushed them.
    pub kept: usize,
}

/// An image, what was flushed on top of it, and what was not.
#[derive(Debug)]
pub(super) struct Disk {
    image: File,
    platter: File,
    on_platter: Vec<bool>,
    cache: BTreeMap<usize, Box<[u8]>>,
    size: u64,
}

impl Disk {
    /// A disk that begins as `image`; `platter` is a new, sparse file for what is flushed.
    pub(super) fn new(image: &Path, platter: &Path) -> Result<Self> {
        let image = File::open(image).with_context(|| format!("open {}", image.display()))?;
        let size = image.metadata().context("the size of an image")?.len();
        let platter = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(platter)
            .with_context(|| format!("make {}", platter.display()))?;
        let blocks = usize::try_from(size)?.div_ceil(BLOCK);
        Ok(Self { image, platter, on_platter: vec![false; blocks], cache: BTreeMap::new(), size })
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads what was written last, flushed or not.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        for (block, within, piece) in pieces(self.range(at, into.len())?) {
            let into = &mut into[piece];
            match self.cache.get(&block) {
                Some(bytes) => into.copy_from_slice(&bytes[within..within + into.len()]),
                None => self.read_flushed(block, within, into)?,
            }
        }
        Ok(())
    }

    /// Writes into the cache.
    pub(super) fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        for (block, within, piece) in pieces(self.range(at, from.len())?) {
            let from = &from[piece];
            if !self.cache.contains_key(&block) {
                let mut bytes = vec![0; BLOCK].into_boxed_slice();
                if from.len() < BLOCK {
                    self.read_flushed(block, 0, &mut bytes)?;
                }
                self.cache.insert(block, bytes);
            }
            if let Some(bytes) = self.cache.get_mut(&block) {
                bytes[within..within + from.len()].copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// Writes past the cache: these blocks are on the platter afterwards, and nothing else is.
    pub(super) fn write_through(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        self.write(at, from)?;
        for (block, _, _) in pieces(self.range(at, from.len())?) {
            if let Some(bytes) = self.cache.remove(&block) {
                self.settle(block, &bytes)?;
            }
        }
        Ok(())
    }

    /// Moves the whole cache to the platter.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some((block, bytes)) = self.cache.pop_first() {
            self.settle(block, &bytes)?;
        }
        Ok(())
    }

    /// The power goes: afterwards the cache is empty.
    pub(super) fn cut(&mut self, unflushed: Unflushed) -> io::Result<Cut> {
        let mut cut = Cut { lost: 0, kept: 0 };
        for (block, bytes) in std::mem::take(&mut self.cache) {
            let keep = match unflushed {
                Unflushed::Lost => false,
                Unflushed::Kept => true,
                Unflushed::Mixed { seed } => chance(seed, block),
            };
            if keep {
                self.settle(block, &bytes)?;
                cut.kept += 1;
            } else {
                cut.lost += 1;
            }
        }
        Ok(cut)
    }

    fn settle(&mut self, block: usize, bytes: &[u8]) -> io::Result<()> {
        self.platter.write_all_at(bytes, block as u64 * BLOCK as u64)?;
        self.on_platter[block] = true;
        Ok(())
    }

    fn read_flushed(&self, block: usize, within: usize, into: &mut [u8]) -> io::Result<()> {
        let file = if self.on_platter[block] { &self.platter } else { &self.image };
        file.read_exact_at(into, (block * BLOCK + within) as u64)
    }

    fn range(&self, at: u64, len: usize) -> io::Result<(usize, usize)> {
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "outside of the disk");
        let end = at.checked_add(len as u64).filter(|end| *end <= self.size).ok_or_else(outside)?;
        let at = usize::try_from(at).map_err(|_| outside())?;
        Ok((at, usize::try_from(end).map_err(|_| outside())?))
    }
}

/// The blocks that the bytes from `at` to `end` lie in: which, where in it, and which of the bytes.
fn pieces((at, end): (usize, usize)) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut next = at;
    std::iter::from_fn(move || {
        (next < end).then(|| {
            let (block, within) = (next / BLOCK, next % BLOCK);
            let piece = next - at..(next - within + BLOCK).min(end) - at;
            next = at + piece.end;
            (block, within, piece)
        })
    })
}

/// Heads or tails for one block (the mixing function of `SplitMix64`).
fn chance(seed: u64, block: usize) -> bool {
    let mut z = seed.wrapping_add((block as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) & 1 == 1
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
