//! Room for the target's kernel and initrd where the boot loader keeps them, asked before anything is changed.
//!
//! Asked twice by the pipeline. Before the download from what a substituter says ([`before_fetch`]): there only what
//! is certain counts, since an archive is larger than the one file that is copied. After it from the files themselves
//! ([`before_switch`]). Whether a loader copies at all is not guessed: it does if the kernel of a system of this host
//! lies in one of [`PLACES`], on a file system of its own. Where none does, nothing is refused.

use std::path::Path;

use nixfleet_core::activation::boot_space::{
    BootFile, Drops, LoaderFolder, Stored, entries_kept, generations_shown,
};
use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::ids::{STORE_DIR, StorePath};
use nixfleet_core::nix::path_info::PathInfo;
use nixfleet_sys::fs;

use super::host::HostPaths;
use crate::tools::Tools;
use crate::tools::nix::Reach;
use crate::tools::nix_env::read_generations;

/// Where NixOS mounts what firmware or loader read.
pub const PLACES: [&str; 3] = ["/boot", "/efi", "/boot/efi"];

/// The folders of systemd-boot, GRUB and extlinux below it, with the habit of each.
const FOLDERS: [(&str, Drops); 3] =
    [("EFI/nixos", Drops::BeforeCopying), ("kernels", Drops::AfterCopying), ("nixos", Drops::AfterCopying)];

/// Entries of systemd-boot: one for each generation that it shows, and one for each specialisation of it.
const ENTRIES: &str = "loader/entries";
/// What an archive has around its one file: names, padding, a link or two.
const ARCHIVE_FRAME_BYTES: u64 = 4 << 10;
/// More files than any loader keeps; the rest of a larger folder is not read.
const FILES_MAX: usize = 4_096;

/// The loader's folder on a file system of its own.
#[derive(Debug)]
struct Place {
    mount: &'static str,
    folder: LoaderFolder,
}

/// Refuses what is certain not to fit before it is downloaded. What cannot be found out refuses nothing.
pub async fn before_fetch(tools: &Tools, host: &HostPaths, target: &StorePath) -> Result<(), Failure> {
    let Some(place) = place_of(host) else { return Ok(()) };
    let Some(wanted) = announced(tools, host, target).await else { return Ok(()) };
    place.judge(host, &wanted)
}

/// Refuses what does not fit, once the files are here.
pub fn before_switch(host: &HostPaths, target: &StorePath) -> Result<(), Failure> {
    place_of(host).map_or(Ok(()), |place| place.judge(host, &boot_files(target)))
}

impl Place {
    fn judge(&self, host: &HostPaths, wanted: &[BootFile]) -> Result<(), Failure> {
        match self.folder.shortage(wanted, &kept(host, Path::new(self.mount))) {
            None => Ok(()),
            Some(short) => Err(Failure::NoSpace {
                at: self.mount.to_owned(),
                need_bytes: short.need_bytes,
                free_bytes: short.free_bytes,
            }),
        }
    }
}

/// Where this host's loader keeps its kernels, if it copies them to a file system of its own.
fn place_of(host: &HostPaths) -> Option<Place> {
    let own = |mount: &&str| {
        let mount = Path::new(mount);
        mount.is_dir() && !fs::same_file_system(mount, Path::new(STORE_DIR))
    };
    let mounts: Vec<&'static str> = PLACES.into_iter().filter(own).collect();
    if mounts.is_empty() {
        return None;
    }
    let systems = [host.profile_system(), host.current(), host.booted()];
    let known: Vec<BootFile> = systems.into_iter().flatten().flat_map(|system| boot_files(&system)).collect();
    let place = |mount: &'static str| Some(Place { mount, folder: loader_folder(Path::new(mount), &known)? });
    mounts.into_iter().find_map(place)
}

/// The folder in which one of the `known` files lies; without such evidence nobody knows what the loader copies.
fn loader_folder(mount: &Path, known: &[BootFile]) -> Option<LoaderFolder> {
    let space = fs::space(mount).ok()?;
    let folder = |(name, drops): &(&str, Drops)| LoaderFolder {
        stored: stored(&mount.join(name)),
        drops: *drops,
        block_bytes: space.block_bytes,
        free_bytes: space.free_bytes,
    };
    FOLDERS.iter().map(folder).find(|folder| known.iter().any(|file| folder.has(file)))
}

fn stored(folder: &Path) -> Vec<Stored> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(FILES_MAX);
    let one = |entry: std::fs::DirEntry| {
        let bytes = entry.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        Some(Stored { name: entry.file_name().into_string().ok()?, bytes })
    };
    entries.filter_map(one).collect()
}

/// Kernel and initrd of a system that is in the store, and of its specialisations; none where it has no kernel.
fn boot_files(system: &StorePath) -> Vec<BootFile> {
    let others = std::fs::read_dir(system.join("specialisation")).into_iter().flatten().flatten();
    let systems = std::iter::once(system.as_path().to_owned()).chain(others.map(|entry| entry.path()));
    systems
        .flat_map(|system| ["kernel", "initrd"].map(|file| boot_file(&system.join(file))))
        .flatten()
        .collect()
}

fn boot_file(link: &Path) -> Option<BootFile> {
    let path = fs::resolve(link).ok()?;
    let bytes = std::fs::metadata(&path).ok()?.len();
    let file = path.file_name()?.to_str()?.to_owned();
    Some(BootFile { store: StorePath::containing(&path).ok()?, file, bytes })
}

/// The files of the entries that stay when the target gets one of its own.
fn kept(host: &HostPaths, mount: &Path) -> Vec<BootFile> {
    let generations = read_generations(&host.profile).map(|found| found.all).unwrap_or_default();
    let listed = std::fs::read_dir(mount.join(ENTRIES)).into_iter().flatten().flatten();
    let entries: Vec<String> =
        listed.take(FILES_MAX).filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let shown = generations_shown(entries.iter().map(String::as_str));
    let kept = entries_kept(generations.len(), shown);
    generations[kept].iter().flat_map(|generation| boot_files(&generation.system)).collect()
}

/// Kernel and initrd of a system that is not here, as the first substituter that has it describes them.
async fn announced(tools: &Tools, host: &HostPaths, target: &StorePath) -> Option<Vec<BootFile>> {
    let running = boot_file(&host.current()?.join("kernel"))?;
    let settings = tools.nix_settings().await.ok()?;
    for substituter in &settings.substituters {
        let ask = |paths: Vec<StorePath>| async move {
            tools.path_info(&paths, Reach::Paths, Some(substituter)).await.ok().map(|found| found.known)
        };
        let Some(system) = ask(vec![target.clone()]).await.and_then(|known| known.into_iter().next()) else {
            continue;
        };
        let (kernel, initrd) = kernel_and_initrd(&system.references)?;
        let infos = ask(vec![kernel.clone(), initrd.clone()]).await?;
        let file = |info: &PathInfo| {
            if info.path == *kernel { kernel_at_least(info, &running) } else { initrd_at_least(info) }
        };
        return Some(infos.iter().map(file).collect());
    }
    None
}

/// An archive of a kernel may hold its symbols and modules too. Half of the running one's image is certain: kernels
/// grow and shrink by percents. One that is in the store already is measured.
fn kernel_at_least(info: &PathInfo, running: &BootFile) -> BootFile {
    boot_file(&info.path.join(&running.file)).unwrap_or_else(|| BootFile {
        store: info.path.clone(),
        file: running.file.clone(),
        bytes: info.nar_size.min(running.bytes / 2),
    })
}

fn initrd_at_least(info: &PathInfo) -> BootFile {
    boot_file(&info.path.join("initrd")).unwrap_or_else(|| BootFile {
        store: info.path.clone(),
        file: "initrd".to_owned(),
        bytes: info.nar_size.saturating_sub(ARCHIVE_FRAME_BYTES),
    })
}

/// NixOS calls the initrd after its kernel: `initrd-linux-6.12.1` beside `linux-6.12.1`.
fn kernel_and_initrd(references: &[StorePath]) -> Option<(&StorePath, &StorePath)> {
    references.iter().find_map(|initrd| {
        let kernel = initrd.name().strip_prefix("initrd-")?;
        Some((references.iter().find(|path| path.name() == kernel)?, initrd))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> StorePath {
        format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-{name}").parse().expect("well-formed")
    }

    fn image(bytes: u64) -> BootFile {
        BootFile { store: path("linux-6.12.1"), file: "bzImage".to_owned(), bytes }
    }

    fn info(name: &str, nar_size: u64) -> PathInfo {
        PathInfo {
            path: path(name),
            nar_hash: "sha256:0000000000000000000000000000000000000000000000000000".parse().expect("a hash"),
            nar_size,
            download_size: None,
            references: vec![],
            signatures: vec![],
            content_address: None,
            ultimate: false,
        }
    }

    /// `/boot` of a loader: a folder with a copy of the kernel of `linux-6.12.1`.
    fn boot(folder: &str, copy: &str) -> tempfile::TempDir {
        let mount = tempfile::tempdir().expect("a folder");
        fs::make_dir(&mount.path().join(folder)).expect("made");
        fs::write_atomic(&mount.path().join(folder).join(copy), &[7; 100]).expect("written");
        mount
    }

    #[test]
    fn each_loader_is_known_by_the_kernel_that_it_has_copied() {
        let base = path("linux-6.12.1").base().to_owned();
        for (folder, copy, drops) in [
            ("EFI/nixos", format!("{base}-bzImage.efi"), Drops::BeforeCopying),
            ("kernels", format!("{base}-bzImage"), Drops::AfterCopying),
            ("nixos", format!("{base}-bzImage"), Drops::AfterCopying),
        ] {
            let mount = boot(folder, &copy);
            let found = loader_folder(mount.path(), &[image(100)]).expect("recognised");
            assert_eq!((found.drops, found.stored.len()), (drops, 1), "{folder}");
        }
    }

    #[test]
    fn a_boot_without_a_kernel_of_this_host_says_nothing() {
        let mount = boot("kernels", "vmlinuz-of-another-system");
        assert_eq!(loader_folder(mount.path(), &[image(99)]), None);
        assert_eq!(loader_folder(mount.path(), &[]), None);
        assert_eq!(loader_folder(Path::new("/nowhere"), &[image(99)]), None);
    }

    #[test]
    fn before_the_download_only_what_is_certain_counts() {
        // An archive with modules: the image in it is not larger than the running one by orders of magnitude.
        assert_eq!(kernel_at_least(&info("linux-6.12.2", 150 << 20), &image(12 << 20)).bytes, 6 << 20);
        assert_eq!(kernel_at_least(&info("linux-6.12.2", 5 << 20), &image(12 << 20)).bytes, 5 << 20);
        let initrd = initrd_at_least(&info("initrd-linux-6.12.2", (30 << 20) + 496));
        assert!((29 << 20..=30 << 20).contains(&initrd.bytes), "{}", initrd.bytes);
    }

    #[test]
    fn kernel_and_initrd_are_told_from_the_other_references_by_their_names() {
        let names = ["linux-6.12.2-modules", "initrd-linux-6.12.2", "linux-6.12.2", "etc", "linux-firmware"];
        let references: Vec<StorePath> = names.iter().map(|name| path(name)).collect();
        let (kernel, initrd) = kernel_and_initrd(&references).expect("both are there");
        assert_eq!((kernel.name(), initrd.name()), ("linux-6.12.2", "initrd-linux-6.12.2"));
        assert_eq!(
            kernel_and_initrd(&references[..2]),
            None,
            "an initrd without its kernel is not understood"
        );
        assert_eq!(kernel_and_initrd(&[]), None);
    }
}
