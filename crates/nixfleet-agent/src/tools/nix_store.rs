//! `nix-store`: fetch a closure, and ask the local store about its paths; [`serve`] asks about a whole closure.
//!
//! The oldest of the interfaces and the one whose output has not changed since Nix 2.3; a question costs 20 to 25 ms
//! before it does anything. It never asks about trust: that is `nix store verify`, in [`super::nix`].

use std::time::Duration;

use nixfleet_core::ids::StorePath;
use nixfleet_core::nix::NotUnderstood;
use nixfleet_core::nix::closure::Contents;
use nixfleet_core::nix::nar_hash::NarHash;
use nixfleet_sys::exec::{Cmd, Ended, ExecError, Finished};

pub mod serve;

use super::lines::{Hearing, quoted_path, store_path, store_paths};
use super::progress::{NixListener, NixWords, Progress};
use super::{ToolError, Tools};

/// Paths in one argument vector: 1,000 of at most 256 bytes are an eighth of what Linux takes.
pub const PATHS_PER_CALL: usize = 1_000;
/// A realisation of which is not known how much it brings, and what one of a known size may take besides.
const REALISE_DEADLINE: Duration = Duration::from_hours(24);
/// The slowest line that is one, in bytes a second. A download is ended by [`REALISE_STALL`]; this is for a cache that lets a byte
/// come now and then, for ever: it must not hold a host for longer than such a line would take.
const SLOWEST_LINE: u64 = 2 << 10;
/// No byte and no path for so long: Nix' own retries of a dead cache last about 5 s per path.
pub const REALISE_STALL: Duration = Duration::from_mins(5);

/// How long a realisation may take that brings so many bytes; 0 if that is not known.
pub fn realise_within(download_bytes: u64) -> Duration {
    REALISE_DEADLINE + Duration::from_secs(download_bytes / SLOWEST_LINE)
}

/// `nix-store --realise`: fetches the path and its closure, never builds.
///
/// There is no `--add-root`: the caller has made a link in `/nix/var/nix/gcroots` beforehand, which keeps the path
/// from the moment it is valid (until then Nix' own temporary root does). The answer about missing paths may be
/// stale by an hour unless the negative cache is off.
pub fn realise(tools: &Tools, path: &StorePath) -> Cmd {
    tools
        .nix_command(&tools.nix_store)
        .arg("--realise")
        .arg(path.as_str())
        .args(["--option", "narinfo-cache-negative-ttl", "0"])
        .args(["--option", "max-jobs", "0", "--option", "builders", ""])
        .args(["--log-format", "internal-json"])
        .args(tools.nix_option_args())
        .deadline(REALISE_DEADLINE)
        .stall(REALISE_STALL)
}

/// `nix-store --realise --dry-run`: what would be fetched.
///
/// It says nothing until it is done, so there is no stall to be seen; the caller says how long it may take. It asks
/// the caches anew for what Nix has remembered of them for up to 30 days, and so does the realisation that follows:
/// a path that was signed or repaired since is seen as it is now.
pub fn dry_run(tools: &Tools, path: &StorePath, within: Duration) -> Cmd {
    tools
        .nix_command(&tools.nix_store)
        .args(["--realise", "--dry-run"])
        .arg(path.as_str())
        .args(["--option", "narinfo-cache-negative-ttl", "0"])
        .args(["--option", "narinfo-cache-positive-ttl", "0"])
        .args(tools.nix_option_args())
        .deadline(within)
}

/// `nix-store --query QUESTION PATHS`.
fn query(tools: &Tools, question: &str, paths: &[StorePath]) -> Cmd {
    tools
        .nix_command(&tools.nix_store)
        .args(["--query", question])
        .args(paths.iter().map(StorePath::as_str))
        .args(tools.nix_option_args())
        .deadline(Duration::from_mins(5))
}

/// The closure of a valid path, itself included.
pub fn requisites(tools: &Tools, path: &StorePath) -> Cmd {
    query(tools, "--requisites", std::slice::from_ref(path))
}

/// What a valid path refers to directly.
pub fn references(tools: &Tools, path: &StorePath) -> Cmd {
    query(tools, "--references", std::slice::from_ref(path))
}

/// The hashes of valid paths, a line each, in their order.
pub fn hashes(tools: &Tools, paths: &[StorePath]) -> Cmd {
    query(tools, "--hash", paths)
}

/// The unpacked sizes of valid paths, a line each, in their order.
pub fn sizes(tools: &Tools, paths: &[StorePath]) -> Cmd {
    query(tools, "--size", paths)
}

/// Which of the paths are not valid, a line each; exits with 0 either way.
pub fn invalid(tools: &Tools, paths: &[StorePath]) -> Cmd {
    tools
        .nix_command(&tools.nix_store)
        .args(["--check-validity", "--print-invalid"])
        .args(paths.iter().map(StorePath::as_str))
        .args(tools.nix_option_args())
}

/// `nix-store --verify-path`: reads the contents of valid paths; exits with 1 if one is not as the database says.
pub fn verify_path(tools: &Tools, paths: &[StorePath]) -> Cmd {
    tools
        .nix_command(&tools.nix_store)
        .arg("--verify-path")
        .args(paths.iter().map(StorePath::as_str))
        .args(tools.nix_option_args())
        .deadline(Duration::from_hours(1))
}

/// `nix-store --repair-path`: fetches a valid path once more and puts it in the place of what is there.
pub fn repair_path(tools: &Tools, path: &StorePath) -> Cmd {
    tools
        .nix_command(&tools.nix_store)
        .args(["--repair-path", path.as_str(), "--option", "narinfo-cache-negative-ttl", "0"])
        .args(tools.nix_option_args())
        .deadline(Duration::from_hours(1))
}

/// What a realisation would fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchPlan {
    /// Paths to fetch.
    pub paths: Vec<StorePath>,
    /// Bytes to download, rounded by Nix to a hundredth of a MiB; 0 also when the cache does not say.
    pub download_bytes: u64,
    /// Bytes after unpacking, rounded as well.
    pub unpacked_bytes: u64,
    /// Derivations that would have to be built: for us as good as unknown.
    pub to_build: Vec<StorePath>,
    /// Paths that no cache has.
    pub unknown: Vec<StorePath>,
}

/// How a realisation ended.
#[derive(Debug)]
#[must_use = "a closure that was not fetched must not be switched to"]
pub enum Realised {
    /// The path and its closure are valid in the local store. Nothing is said about trust.
    Present,
    /// Nix gave up.
    Failed(RealiseFailure),
}

/// What Nix said when it gave up: texts, and what we recognise in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealiseFailure {
    /// How it ended; 1 says nothing, 100 and up are failed builds.
    pub ended: Ended,
    /// Everything it said, as text.
    pub words: NixWords,
    /// What the texts are known to mean, in order, each once. A fallback: ask the structure first.
    pub complaints: Vec<Complaint>,
}

/// A text of Nix that we know, from recorded samples of several versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complaint {
    /// No signature by a key that this host trusts.
    NotSigned(Option<StorePath>),
    /// What the cache sent is not what it had announced: another hash or size, or not an archive.
    NotAsAnnounced(Option<StorePath>),
    /// The cache announced an archive that it does not have, or cut it short.
    Incomplete(Option<StorePath>),
    /// The cache could not be reached, or answered with an error.
    CacheUnreachable,
    /// No cache has the path.
    NotInAnyCache(Option<StorePath>),
    /// A key in the settings is malformed.
    BadKey,
    /// The disk is full.
    DiskFull,
    /// A setting was dropped, because the Nix daemon does not trust us.
    SettingRefused,
}

/// What the texts are known to mean.
pub fn complaints(words: &NixWords) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut unknown = false;
    for text in &words.messages {
        let listed = text.strip_prefix("  ").filter(|_| unknown).and_then(|path| path.parse().ok());
        unknown = listed.is_some() || text.starts_with("don't know how to build these paths");
        let meant = listed.map(|path| Complaint::NotInAnyCache(Some(path))).or_else(|| complaint(text));
        found.extend(meant.filter(|complaint| !found.contains(complaint)));
    }
    found
}

/// What one message is known to mean; see `tests/fixtures/tools` for a sample of each.
fn complaint(text: &str) -> Option<Complaint> {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let path = || quoted_path(text);
    if has(&["not signed by any of the keys", "does not have a valid signature"])
        || (text.contains("lacks a") && text.contains("signature"))
    {
        Some(Complaint::NotSigned(path()))
    } else if has(&[
        "hash mismatch",
        "size mismatch",
        "non-zero padding",
        "bad archive",
        "bad magic",
        "NAR info file",
    ]) {
        Some(Complaint::NotAsAnnounced(path()))
    } else if has(&[
        "is incomplete",
        "does not exist in binary cache",
        "unexpected end-of-file",
        "unexpected EOF",
        "Failed to open archive",
        "Truncated zstd input",
    ]) {
        Some(Complaint::Incomplete(path()))
    } else if has(&["No space left on device", "database or disk is full"]) {
        Some(Complaint::DiskFull)
    } else if has(&["unable to download", "Couldn't connect", "Could not resolve"]) {
        Some(Complaint::CacheUnreachable)
    } else if has(&["there is no substituter that can build it"]) {
        Some(Complaint::NotInAnyCache(path()))
    } else if has(&["public key is not valid", "is corrupt"]) && text.contains("key") {
        Some(Complaint::BadKey)
    } else if has(&["because it is a restricted setting"]) {
        Some(Complaint::SettingRefused)
    } else {
        None
    }
}

/// The plan in what `--dry-run` printed on its standard error.
pub fn parse_dry_run(stderr: &str) -> Result<FetchPlan, NotUnderstood> {
    let mut plan = FetchPlan::default();
    let mut section = Section::None;
    for line in stderr.lines() {
        if let Some(path) = line.strip_prefix("  /nix/store/") {
            let path = store_path(&format!("/nix/store/{path}"), "a planned path is not a store path")?;
            match section {
                Section::None => return Err(NotUnderstood::new("a path comes before its heading", line)),
                Section::Fetch => plan.paths.push(path),
                Section::Build => plan.to_build.push(path),
                Section::Unknown => plan.unknown.push(path),
            }
        } else if let Some(heading) = heading(line)? {
            section = heading.section;
            plan.download_bytes = plan.download_bytes.saturating_add(heading.download_bytes);
            plan.unpacked_bytes = plan.unpacked_bytes.saturating_add(heading.unpacked_bytes);
        } else {
            // Warnings of a cache that is away, and the like.
            section = Section::None;
        }
    }
    Ok(plan)
}

#[derive(Clone, Copy)]
enum Section {
    None,
    Fetch,
    Build,
    Unknown,
}

struct Heading {
    section: Section,
    download_bytes: u64,
    unpacked_bytes: u64,
}

fn heading(line: &str) -> Result<Option<Heading>, NotUnderstood> {
    let plain = |section| Ok(Some(Heading { section, download_bytes: 0, unpacked_bytes: 0 }));
    if line.starts_with("don't know how to build these paths") && line.ends_with(':') {
        return plain(Section::Unknown);
    }
    if (line.starts_with("these ") || line.starts_with("this ")) && line.ends_with("will be built:") {
        return plain(Section::Build);
    }
    let Some((_, sizes)) = line.split_once(" will be fetched (") else { return Ok(None) };
    let unclear = || NotUnderstood::new("the sizes of a plan are unclear", line);
    let (download, unpacked) = sizes
        .strip_suffix(" unpacked):")
        .and_then(|sizes| sizes.split_once(" download, "))
        .ok_or_else(unclear)?;
    Ok(Some(Heading {
        section: Section::Fetch,
        download_bytes: bytes(download).ok_or_else(unclear)?,
        unpacked_bytes: bytes(unpacked).ok_or_else(unclear)?,
    }))
}

/// `12.34 MiB` in bytes; whole numbers throughout, since Nix prints two decimals.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once(' ')?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 12 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let thousandths = whole.parse::<u128>().ok()? * scale + part.parse::<u128>().ok()?;
    u64::try_from((thousandths << shift) / scale).ok()
}

/// A hash per line, as many as there are paths.
pub fn parse_hashes(stdout: &str, paths: usize) -> Result<Vec<NarHash>, NotUnderstood> {
    let found: Vec<NarHash> = stdout.lines().map(str::parse).collect::<Result<_, _>>()?;
    as_many(found, paths)
}

/// A size per line, as many as there are paths.
pub fn parse_sizes(stdout: &str, paths: usize) -> Result<Vec<u64>, NotUnderstood> {
    let one = |line: &str| line.parse().map_err(|_| NotUnderstood::new("a size is not a number", line));
    as_many(stdout.lines().map(one).collect::<Result<_, _>>()?, paths)
}

fn as_many<T>(found: Vec<T>, paths: usize) -> Result<Vec<T>, NotUnderstood> {
    if found.len() == paths {
        return Ok(found);
    }
    Err(NotUnderstood::new("there is not one line for each path", &format!("{} for {paths}", found.len())))
}

/// A store path per line.
pub fn parse_paths(stdout: &str) -> Result<Vec<StorePath>, NotUnderstood> {
    store_paths(stdout)
}

impl Tools {
    /// Fetches the path and its closure; `cmd` is [`realise`], perhaps with other limits.
    pub async fn realise(&self, cmd: Cmd, on_progress: impl FnMut(Progress)) -> Result<Realised, ToolError> {
        let mut listener = NixListener::new(on_progress);
        let finished = cmd.run_heard(&mut listener).await;
        let words = listener.into_words();
        match finished {
            Ok(Finished { ended: Ended::Exited(0), .. }) => Ok(Realised::Present),
            Ok(finished) => {
                let complaints = complaints(&words);
                Ok(Realised::Failed(RealiseFailure { ended: finished.ended, words, complaints }))
            }
            Err(error) => Err(ToolError::Exec(with_words(error, &words))),
        }
    }

    /// What a realisation would fetch.
    pub async fn dry_run(&self, path: &StorePath, within: Duration) -> Result<FetchPlan, ToolError> {
        let cmd = dry_run(self, path, within);
        let line = cmd.line();
        let mut hearing = Hearing::default();
        cmd.run_heard(&mut hearing).await.and_then(Finished::success).map_err(ToolError::Exec)?;
        let plan = hearing.into_text().and_then(|text| parse_dry_run(&text));
        plan.map_err(|source| ToolError::NotUnderstood { line, source })
    }

    /// The closure of a valid path, itself included.
    pub async fn requisites(&self, path: &StorePath) -> Result<Vec<StorePath>, ToolError> {
        understood(requisites(self, path), parse_paths).await
    }

    /// What a valid path refers to directly.
    pub async fn references(&self, path: &StorePath) -> Result<Vec<StorePath>, ToolError> {
        understood(references(self, path), parse_paths).await
    }

    /// Hash and size of each of the valid paths, in their order.
    pub async fn contents(&self, paths: &[StorePath]) -> Result<Vec<Contents>, ToolError> {
        let mut all = Vec::with_capacity(paths.len());
        for some in paths.chunks(PATHS_PER_CALL) {
            // Side by side: most of a question's time is the program's start.
            let hashes = understood(hashes(self, some), |text| parse_hashes(text, some.len()));
            let sizes = understood(sizes(self, some), |text| parse_sizes(text, some.len()));
            let (hashes, sizes) = tokio::try_join!(hashes, sizes)?;
            let rows = some.iter().cloned().zip(hashes).zip(sizes);
            all.extend(rows.map(|((path, nar_hash), nar_size)| Contents { path, nar_hash, nar_size }));
        }
        Ok(all)
    }

    /// Which of the paths are not valid in the local store.
    pub async fn invalid(&self, paths: &[StorePath]) -> Result<Vec<StorePath>, ToolError> {
        let mut all = Vec::new();
        for some in paths.chunks(PATHS_PER_CALL) {
            all.extend(understood(invalid(self, some), parse_paths).await?);
        }
        Ok(all)
    }

    /// Whether all of these valid paths have the contents that the database says; reads all of them.
    pub async fn are_whole(&self, paths: &[StorePath]) -> Result<bool, ToolError> {
        for some in paths.chunks(PATHS_PER_CALL) {
            let finished = verify_path(self, some).run().await.map_err(ToolError::Exec)?;
            if finished.ended != Ended::Exited(0) {
                // 1 for a path that was modified, and also for one whose folder is gone.
                return if finished.ended == Ended::Exited(1) {
                    Ok(false)
                } else {
                    finished.success().map(|_| false).map_err(ToolError::Exec)
                };
            }
        }
        Ok(true)
    }

    /// Fetches a valid path once more, in the place of what is there.
    pub async fn repair(&self, path: &StorePath) -> Result<(), ToolError> {
        repair_path(self, path).run().await.and_then(Finished::success).map_err(ToolError::Exec)?;
        Ok(())
    }

    /// Whether the path is valid in the local store, and so its whole closure.
    pub async fn is_valid(&self, path: &StorePath) -> Result<bool, ToolError> {
        Ok(self.invalid(std::slice::from_ref(path)).await?.is_empty())
    }
}

/// Runs it to a good end and parses what it printed.
pub(super) async fn understood<T>(
    cmd: Cmd,
    parse: impl FnOnce(&str) -> Result<T, NotUnderstood>,
) -> Result<T, ToolError> {
    let line = cmd.line();
    let finished = cmd.run().await.and_then(Finished::success).map_err(ToolError::Exec)?;
    parse(&finished.stdout_text()).map_err(|source| ToolError::NotUnderstood { line, source })
}

/// The same error with the messages as its last words: `exec` has only seen them as JSON.
pub(super) fn with_words(error: ExecError, words: &NixWords) -> ExecError {
    let last_words = words.text();
    match error {
        ExecError::Failed { line, ended, elapsed, last_words: _ } => {
            ExecError::Failed { line, ended, elapsed, last_words }
        }
        ExecError::Deadline { line, limit, last_words: _ } => ExecError::Deadline { line, limit, last_words },
        ExecError::Stalled { line, limit, last_words: _ } => ExecError::Stalled { line, limit, last_words },
        ExecError::Stopped { line, last_words: _ } => ExecError::Stopped { line, last_words },
        ExecError::Start { .. } | ExecError::TooMuchOutput { .. } | ExecError::Lost { .. } => error,
    }
}

#[cfg(test)]
mod tests;
