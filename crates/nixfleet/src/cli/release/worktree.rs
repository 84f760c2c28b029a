//! Whether what is built is what is committed, where that can be told: by git, in whose working tree the description lies.

use std::path::Path;
use std::time::Duration;

use nixfleet::nix::program;
use nixfleet_sys::exec::Cmd;

/// Looking through a large tree on a slow disk.
const WITHIN: Duration = Duration::from_secs(20);
/// Of names, of which the first is enough; a tree in which more differs is not told of.
const NAMES_BYTES_MAX: usize = 4 << 20;

/// The first file that git knows and that differs from its last commit, without those that are served to hosts; `None` also
/// where there is no git, or no working tree. Files that git does not know are not asked about: Nix does not see them either.
pub(super) fn changed(folder: &Path, served: &Path) -> Option<String> {
    let git = program("git")?;
    let status = Cmd::new(git)
        .env_from_ours(&["PATH", "HOME"])
        .env("LC_ALL", "C")
        // A look must not write, nor wait for whoever does.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .args(["status", "--porcelain", "--untracked-files=no", "--", ":/"])
        .in_folder(folder)
        .deadline(WITHIN)
        .stdout_bytes_max(NAMES_BYTES_MAX);
    let status = match nixfleet_sys::fs::resolve(served).ok().filter(|served| served.starts_with(folder)) {
        Some(served) => status.arg(format!(":(exclude){}", served.display())),
        None => status,
    };
    let status = status.run_blocking().ok()?.success().ok()?;
    // Two letters, a space, the name.
    status.stdout_text().lines().next()?.get(3..).map(str::to_owned)
}
