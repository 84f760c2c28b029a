//! Systems into store paths: those that are named are fetched, the others are built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_core::ids::StorePath;
use nixfleet_sys::exec::{Cmd, ExecError, Finished};
use tokio::task::JoinSet;

use super::{Nix, bare};
use crate::fleet::System;

/// In the name of the file in which Nix notes what caches have, and in its words when that fails.
const NOTEBOOK: &str = "/nix/binary-cache-v";
/// Store paths that one command fetches: few enough that a slow one holds up few others.
const PATHS_PER_FETCH: usize = 100;

/// How systems are built.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Where relative installables are read from.
    pub folder: PathBuf,
    /// So many commands at the same time.
    pub jobs: usize,
    /// How long one command may take.
    pub deadline: Duration,
    /// A folder for links to what was built: they keep it from being collected as garbage.
    pub roots: PathBuf,
}

/// A system that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be had", list(.systems))]
pub struct BuildFailed {
    /// Which ones one command was asked for.
    pub systems: Vec<System>,
    /// Why.
    #[source]
    pub source: WhyNot,
}

/// Why a system could not be had.
#[derive(Debug, thiserror::Error)]
pub enum WhyNot {
    /// Nix failed.
    #[error(transparent)]
    Exec(ExecError),
    /// It built something else than one system.
    #[error("it gives {0} store paths, and one is wanted")]
    NotOne(usize),
    /// Nix answered in another form than we know.
    #[error("`nix build --json` printed what is not understood here")]
    Json(#[source] serde_json::Error),
    /// It built something outside of the store.
    #[error(transparent)]
    Path(nixfleet_core::ids::NotAStorePath),
}

fn list(systems: &[System]) -> String {
    match systems {
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} or one of {} others", rest.len()),
        [] => "nothing".to_owned(),
    }
}

type Outcome = Result<Vec<(System, StorePath)>, BuildFailed>;

impl Nix {
    /// The store path of each system, all of them valid in the local store. Goes on after a failure, so that all
    /// failures are known at once; `done` is told how many systems are there.
    pub async fn build(
        &self,
        systems: &BTreeSet<System>,
        options: &BuildOptions,
        mut done: impl FnMut(usize),
    ) -> Result<BTreeMap<System, StorePath>, Vec<BuildFailed>> {
        let mut waiting = self.commands(systems, options).into_iter();
        let mut running: JoinSet<Outcome> = JoinSet::new();
        let (mut built, mut failed) = (BTreeMap::new(), Vec::new());
        loop {
            while running.len() < options.jobs.max(1)
                && let Some((systems, cmd)) = waiting.next()
            {
                running.spawn(run(systems, cmd));
            }
            match running.join_next().await {
                None => break,
                Some(Ok(Ok(paths))) => built.extend(paths),
                Some(Ok(Err(failure))) => failed.push(failure),
                Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
            }
            done(built.len());
        }
        if failed.is_empty() { Ok(built) } else { Err(failed) }
    }

    fn commands(&self, systems: &BTreeSet<System>, options: &BuildOptions) -> Vec<(Vec<System>, Cmd)> {
        let (mut paths, mut commands) = (Vec::new(), Vec::new());
        for system in systems {
            match system {
                System::Path(path) => paths.push(path),
                System::Installable(text) => {
                    let link = options.roots.join(format!("built-{}", commands.len()));
                    commands.push((vec![system.clone()], self.build_one(text, &link, options)));
                }
            }
        }
        let fetches = (0..).zip(paths.chunks(PATHS_PER_FETCH)).map(|(number, some): (u32, _)| {
            let systems = some.iter().map(|path| System::Path((*path).clone())).collect();
            (systems, self.fetch(some, &options.roots.join(format!("fetched-{number}")), options))
        });
        commands.extend(fetches);
        commands
    }

    fn build_one(&self, installable: &str, link: &Path, options: &BuildOptions) -> Cmd {
        // Not `--print-out-paths`: Nix 2.8 does not know it.
        self.command(&["build", "--json", "--out-link"])
            .arg(link)
            .args(["--", installable])
            .in_folder(&options.folder)
            .deadline(options.deadline)
    }

    /// The links are called `link`, `link-2`, and so on.
    fn fetch(&self, paths: &[&StorePath], link: &Path, options: &BuildOptions) -> Cmd {
        bare(&self.nix_store)
            .args(["--realise", "--option", "narinfo-cache-negative-ttl", "0", "--indirect", "--add-root"])
            .arg(link)
            .args(paths.iter().map(|path| path.as_str()))
            .deadline(options.deadline)
    }
}

async fn run(systems: Vec<System>, cmd: Cmd) -> Outcome {
    match (systems.as_slice(), run_again_if_in_the_way(cmd).await) {
        (_, Err(error)) => Err(BuildFailed { systems, source: WhyNot::Exec(error) }),
        ([System::Installable(_)], Ok(finished)) => match one_path(&finished.stdout) {
            Ok(path) => Ok(systems.into_iter().map(|system| (system, path.clone())).collect()),
            Err(source) => Err(BuildFailed { systems, source }),
        },
        (_, Ok(_)) => {
            Ok(systems.into_iter().filter_map(|system| Some((system.clone(), path_of(system)?))).collect())
        }
    }
}

/// Several Nix that note for the first time what a cache has are in each other's way in that notebook (seen with Nix 2.8), and
/// one of them fails with a refused statement. It is noted by then, so one more try goes well.
async fn run_again_if_in_the_way(cmd: Cmd) -> Result<Finished, ExecError> {
    match cmd.clone().run().await.and_then(Finished::success) {
        Err(ExecError::Failed { last_words, .. }) if last_words.contains(NOTEBOOK) => {
            cmd.run().await.and_then(Finished::success)
        }
        done => done,
    }
}

fn path_of(system: System) -> Option<StorePath> {
    match system {
        System::Path(path) => Some(path),
        System::Installable(_) => None,
    }
}

/// What `nix build --json` prints of one thing that was built: its outputs by their names.
#[derive(serde::Deserialize)]
struct BuiltJson {
    outputs: BTreeMap<String, String>,
}

/// The one output of the one thing that was built.
fn one_path(json: &[u8]) -> Result<StorePath, WhyNot> {
    let built: Vec<BuiltJson> = serde_json::from_slice(json).map_err(WhyNot::Json)?;
    let outputs: Vec<String> = built.into_iter().flat_map(|one| one.outputs.into_values()).collect();
    match outputs.as_slice() {
        [only] => only.parse().map_err(WhyNot::Path),
        [..] => Err(WhyNot::NotOne(outputs.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-web-1-25.11";

    /// Shapes as Nix 2.8 and 2.26 print them; the newer one tells how long it took.
    #[test]
    fn the_one_output_is_found_in_the_shapes_of_old_and_new_nix() {
        for json in [
            format!(r#"[{{"drvPath":"{PATH}.drv","outputs":{{"out":"{PATH}"}}}}]"#),
            format!(
                r#"[{{"drvPath":"{PATH}.drv","outputs":{{"out":"{PATH}"}},"startTime":1,"stopTime":2}}]"#
            ),
        ] {
            assert_eq!(one_path(json.as_bytes()).expect("one").as_str(), PATH);
        }
    }

    #[test]
    fn none_several_and_rubbish_are_refused() {
        for json in [
            "[]".to_owned(),
            "{}".to_owned(),
            String::new(),
            format!(r#"[{{"outputs":{{"out":"{PATH}","dev":"{PATH}-dev"}}}}]"#),
            r#"[{"outputs":{"out":"/tmp/x"}}]"#.to_owned(),
        ] {
            assert!(one_path(json.as_bytes()).is_err(), "{json}");
        }
    }
}
