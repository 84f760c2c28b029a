//! The system profile: set before the switch, as the boot loader reads the generation number from it, and put back.

use std::path::Path;

use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::ids::{Generation, StorePath};
use nixfleet_sys::{fs, text};

use super::host::HostPaths;
use crate::tools::Tools;
use crate::tools::nix_env::read_generations;

/// Points the profile at the system and returns the generation that this made.
///
/// `--set` re-uses a generation only when the newest one has that target, so the number is read back, never guessed
/// (`facts/nixos.md` D6).
pub async fn set(tools: &Tools, host: &HostPaths, system: &StorePath) -> Result<Generation, Failure> {
    let refused = |error: String| Failure::ProfileNotSet { last_lines: text::last_lines(&error, 12) };
    tools.set_profile(&host.profile, system).await.map_err(|error| refused(text::chain(&error)))?;
    let now = host.generation().filter(|generation| generation.system == *system);
    now.ok_or_else(|| refused(format!("the profile points to {:?} after it was set", host.profile_system())))
}

/// Points the profile back at the system that ran before, by whatever still works.
///
/// Nix makes a new generation where it can. Where it cannot (its database is damaged, the disk is full), the link is
/// moved to the recorded generation by hand: that needs nothing but one directory entry.
pub async fn put_back(
    tools: Option<&Tools>,
    host: &HostPaths,
    system: &StorePath,
    recorded: Option<&Generation>,
) -> Result<(), Failure> {
    if host.profile_system().as_ref() == Some(system) {
        return Ok(());
    }
    if let Some(tools) = tools
        && set(tools, host, system).await.is_ok()
    {
        return Ok(());
    }
    relink(&host.profile, system, recorded).map_err(|why| Failure::ProfileNotSet { last_lines: vec![why] })
}

fn relink(profile: &Path, system: &StorePath, recorded: Option<&Generation>) -> Result<(), String> {
    let generations = read_generations(profile).map_err(|error| text::chain(&error))?;
    let same = |generation: &&Generation| generation.system == *system;
    let wanted = generations.all.iter().find(|generation| Some(*generation) == recorded);
    let found = wanted.filter(same).or_else(|| generations.all.iter().rfind(same));
    let found = found.ok_or_else(|| format!("no generation of the profile has {system} any more"))?;
    let name = profile.file_name().unwrap_or_default().to_string_lossy();
    let link = format!("{name}-{}-link", found.number);
    fs::link_atomic(Path::new(&link), profile).map_err(|error| text::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn system(name: &str) -> StorePath {
        format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-{name}")
            .parse()
            .expect("well-formed")
    }

    #[tokio::test]
    async fn without_nix_the_link_itself_is_moved_back_to_the_recorded_generation() {
        let dir = tempfile::tempdir().expect("a folder");
        let profile = dir.path().join("system");
        for (number, name) in [(1, "old"), (2, "new"), (3, "old")] {
            symlink(system(name).as_path(), dir.path().join(format!("system-{number}-link"))).expect("made");
        }
        symlink("system-2-link", &profile).expect("made");
        let host = HostPaths { profile: profile.clone(), ..HostPaths::default() };
        let recorded = Generation { number: 1, system: system("old") };
        put_back(None, &host, &system("old"), Some(&recorded)).await.expect("moved");
        assert_eq!(fs::read_link(&profile).expect("a link"), Path::new("system-1-link"));
    }

    #[tokio::test]
    async fn a_number_that_was_reused_for_another_system_is_not_believed() {
        let dir = tempfile::tempdir().expect("a folder");
        let profile = dir.path().join("system");
        for (number, name) in [(1, "other"), (2, "new"), (3, "old")] {
            symlink(system(name).as_path(), dir.path().join(format!("system-{number}-link"))).expect("made");
        }
        symlink("system-2-link", &profile).expect("made");
        let host = HostPaths { profile: profile.clone(), ..HostPaths::default() };
        let recorded = Generation { number: 1, system: system("old") };
        put_back(None, &host, &system("old"), Some(&recorded)).await.expect("moved");
        assert_eq!(fs::read_link(&profile).expect("a link"), Path::new("system-3-link"));
    }
}
