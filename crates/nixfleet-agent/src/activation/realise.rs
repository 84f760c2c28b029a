//! Fetch the closure and trust it: rooted before the download, decided from structure and not from wording.
//!
//! `nix-store --realise` ends with 1 for everything that can go wrong, and says nothing of a path that is already in
//! the store (`facts/nix.md`). So a failure is classified by asking each substituter what it has and who signed it,
//! and a success is followed by asking the local store who signed every path of the closure.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use nixfleet_core::activation::outcome::{Failure, Step};
use nixfleet_core::activation::record::Unsigned;
use nixfleet_core::ids::{ClosureDigest, StorePath};
use nixfleet_core::nix::closure::{Contents, closure_digest};
use nixfleet_core::nix::path_info::{PathInfo, PathInfos};
use nixfleet_sys::exec::{Ended, ExecError};
use nixfleet_sys::{fs, text};
use tokio::time::timeout;

use super::host::HostPaths;
use super::types::Observer;
use super::unsynced::Unsynced;
use super::{boot_space, machine};
use crate::failpoint;
use crate::tools::nix::{NixSettings, Reach, TrustedKey, Verified, all_signed};
use crate::tools::nix_store::{self, Complaint, RealiseFailure, Realised};
use crate::tools::{ToolError, Tools};
use nixfleet_sys::text::chain;

/// Room that must stay free beside the closure: Nix's database grows, and a rescue needs a few kilobytes.
const SPARE_BYTES: u64 = 16 << 20;
/// Where a full store is reported.
const STORE: &str = "/nix/store";

/// What is known of a closure before the activation has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It is in the store, valid and signed throughout, and has this digest.
    Trusted(ClosureDigest),
    /// Nothing good: it has to be looked at properly.
    Unknown,
}

/// What is to be fetched, and under which rules.
pub struct Order<'a> {
    /// The system.
    pub system: &'a StorePath,
    /// What [`seen`] said of it a moment ago.
    pub seen: &'a Seen,
    /// Where things are.
    pub host: &'a HostPaths,
    /// The garbage collector root to make beforehand.
    pub root: &'a Path,
    /// The list of what this fetch brings; one for each who may fetch at the same time.
    pub unsynced: &'a Path,
    /// What happens to a path without a trusted signature.
    pub unsigned: Unsigned,
    /// What a release says of the contents.
    pub digest: Option<&'a ClosureDigest>,
    /// How long the download may stand still.
    pub stall: Duration,
    /// The kind of machine that this host is, if Nix does not say.
    pub architecture: &'a str,
    /// Is told of bytes.
    pub observer: &'a dyn Observer,
}

/// What is known of the closure of `system` on a host that trusts these keys. What the store has told of is checked while it tells
/// of the others.
pub async fn seen(tools: &Tools, system: &StorePath, keys: impl Future<Output = Vec<TrustedKey>>) -> Seen {
    if !system.as_path().exists() {
        return Seen::Unknown;
    }
    let (told, heard) = mpsc::channel();
    let served = async move {
        // Once a path is not signed, nobody listens any more.
        let told = |info| drop(told.send(info));
        tools.served_closure(system, told).await.is_ok()
    };
    let signed = async {
        let keys = keys.await;
        (if_signed(heard.into_iter(), keys.clone()).await, keys)
    };
    let (served, (mut contents, keys)) = tokio::join!(served, signed);
    if !served {
        contents = signed_as_told_otherwise(tools, system, keys).await;
    }
    contents.map_or(Seen::Unknown, |contents| Seen::Trusted(closure_digest(contents)))
}

/// What the closure contains if it is all there and signed, for a store that serves nothing.
async fn signed_as_told_otherwise(
    tools: &Tools,
    system: &StorePath,
    keys: Vec<TrustedKey>,
) -> Option<Vec<Contents>> {
    let infos = tools.path_info(std::slice::from_ref(system), Reach::Closures, None).await.ok()?;
    let PathInfos { known, missing } = infos;
    if missing.is_empty() { if_signed(known.into_iter(), keys).await } else { None }
}

/// What these paths contain if all are signed, worked out beside what goes on here.
async fn if_signed(
    paths: impl Iterator<Item = PathInfo> + Send + 'static,
    keys: Vec<TrustedKey>,
) -> Option<Vec<Contents>> {
    tokio::task::spawn_blocking(move || all_signed(paths, &keys)).await.ok().flatten()
}

/// Fetches, verifies and roots the closure. Whatever goes wrong, nothing is changed but the store.
pub async fn realise(tools: &Tools, order: &Order<'_>) -> Result<(), Failure> {
    failpoint::hit("before-root");
    root(order.root, order.system)?;
    failpoint::hit("after-root");
    let unsynced = Unsynced::take_up(tools, order.unsynced, order.observer).await?;
    let present = order.system.as_path().exists();
    if !(present && is_settled(tools, order).await?) {
        let (planned, within) = plan(tools, order, present).await?;
        unsynced.while_fetching(&planned, fetch(tools, order, within)).await?;
        trust(tools, order, present).await?;
    }
    unsynced.refuse(tools, order.system).await?;
    digest(tools, order).await?;
    machine::runs_here(tools, order.system, order.architecture).await
}

/// Whether the closure is in the store already, valid and signed throughout: then there is nothing to fetch, and Nix
/// need not be asked twice.
async fn is_settled(tools: &Tools, order: &Order<'_>) -> Result<bool, Failure> {
    match (order.unsigned, order.seen) {
        (Unsigned::Accept, _) => return Ok(false),
        (Unsigned::Refuse, Seen::Trusted(_)) => return Ok(true),
        (Unsigned::Refuse, Seen::Unknown) => {}
    }
    match trust(tools, order, true).await {
        Ok(()) => Ok(true),
        // A folder without a valid path, or a closure with holes: only a fetch can tell more.
        Err(Failure::Internal { .. } | Failure::Corrupt { .. }) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// The root is a direct link in a folder of Nix's own: it keeps the path from the moment it is valid.
fn root(link: &Path, system: &StorePath) -> Result<(), Failure> {
    let folder = link.parent().map_or(Ok(()), fs::make_dir);
    let made = folder.and_then(|()| fs::link_atomic(system.as_path(), link));
    made.map_err(|error| no_space_or_internal(&error, "/nix/var"))
}

/// A full disk has its own failure; the need is what a link or a line takes.
pub(super) fn no_space_or_internal(error: &fs::FsError, at: &str) -> Failure {
    if error.is_no_space() {
        let free_bytes = fs::free_bytes(Path::new(at)).unwrap_or(0);
        return Failure::NoSpace { at: at.to_owned(), need_bytes: 4096, free_bytes };
    }
    Failure::Internal { what: chain(error) }
}

/// The paths that a fetch will bring, and how long it may take. Refuses before the download what would not fit, in the store or in
/// `/boot`.
async fn plan(
    tools: &Tools,
    order: &Order<'_>,
    present: bool,
) -> Result<(Vec<StorePath>, Duration), Failure> {
    // Asked side by side, each for as long as a cache may be silent: what is not known then refuses nothing.
    let room = timeout(order.stall, async {
        if present { Ok(()) } else { boot_space::before_fetch(tools, order.host, order.system).await }
    });
    let (plan, room) = tokio::join!(tools.dry_run(order.system, order.stall), room);
    let boot = room.unwrap_or(Ok(()));
    // A plan that cannot be had is no reason to refuse: the fetch itself says what is wrong.
    let Ok(plan) = plan else {
        return boot.map(|()| (vec![order.system.clone()], nix_store::realise_within(0)));
    };
    let need_bytes = plan.unpacked_bytes.saturating_add(SPARE_BYTES);
    let free_bytes = fs::free_bytes(Path::new(STORE)).unwrap_or(u64::MAX);
    if plan.unpacked_bytes > 0 && need_bytes > free_bytes {
        return Err(Failure::NoSpace { at: STORE.to_owned(), need_bytes, free_bytes });
    }
    boot.map(|()| (plan.paths, nix_store::realise_within(plan.download_bytes)))
}

async fn fetch(tools: &Tools, order: &Order<'_>, within: Duration) -> Result<(), Failure> {
    failpoint::hit("before-realise");
    let cmd = nix_store::realise(tools, order.system).stall(order.stall).deadline(within);
    let realised = tools.realise(cmd, |progress| order.observer.fetched(progress)).await;
    failpoint::hit("after-realise");
    match realised {
        Ok(Realised::Present) => Ok(()),
        Ok(Realised::Failed(failure)) => Err(classify(tools, order.system, &failure).await),
        Err(error) => Err(not_fetched(&error)),
    }
}

/// The failure of a fetch that gave no result of its own.
fn not_fetched(error: &ToolError) -> Failure {
    match error {
        ToolError::Exec(ExecError::Stalled { limit, .. }) => Failure::Stalled { after_secs: limit.as_secs() },
        // More came of a path than its signed description says; Nix would have taken it until the disk is full.
        ToolError::Exec(ExecError::Stopped { last_words, .. }) => {
            Failure::Corrupt { last_lines: text::last_lines(last_words, 12) }
        }
        ToolError::Exec(
            ExecError::Deadline { .. }
            | ExecError::Start { .. }
            | ExecError::Failed { .. }
            | ExecError::TooMuchOutput { .. }
            | ExecError::Lost { .. },
        )
        | ToolError::NotUnderstood { .. } => {
            Failure::FetchFailed { exit: None, last_lines: text::last_lines(&chain(error), 12) }
        }
    }
}

/// What one substituter says of a closure.
enum Says {
    /// It has all of it, signed by a trusted key.
    Trusted,
    /// It has these, and no trusted key signed them.
    Untrusted(Vec<StorePath>),
    /// It answers, and lacks something.
    Lacks,
    /// It does not answer.
    Silent,
}

/// Why a fetch failed: first from what the substituters have, then from Nix's own words.
async fn classify(tools: &Tools, system: &StorePath, failure: &RealiseFailure) -> Failure {
    let last_lines = text::last_lines(&failure.words.text(), 12);
    let settings = tools.nix_settings().await.unwrap_or_default();
    let complains = |wanted: fn(&Complaint) -> bool| failure.complaints.iter().any(wanted);
    if complains(|complaint| matches!(complaint, Complaint::DiskFull)) {
        let free_bytes = fs::free_bytes(Path::new(STORE)).unwrap_or(0);
        return Failure::NoSpace { at: STORE.to_owned(), need_bytes: free_bytes + SPARE_BYTES, free_bytes };
    }
    let asked = settings.substituters.clone();
    let (mut trusted, mut lacking, mut untrusted) = (false, false, Vec::new());
    for substituter in &asked {
        match says(tools, substituter, system).await {
            Says::Trusted => trusted = true,
            Says::Untrusted(paths) => untrusted.extend(paths),
            Says::Lacks => lacking = true,
            Says::Silent => {}
        }
    }
    let not_signed = complains(|complaint| matches!(complaint, Complaint::NotSigned(_)));
    if !trusted && (!untrusted.is_empty() || not_signed) {
        let paths = if untrusted.is_empty() { vec![system.clone()] } else { untrusted };
        return mismatch(settings, paths, false);
    }
    if complains(|c| matches!(c, Complaint::NotAsAnnounced(_) | Complaint::Incomplete(_))) {
        return Failure::Corrupt { last_lines };
    }
    let unreachable = complains(|complaint| matches!(complaint, Complaint::CacheUnreachable));
    match (trusted, lacking && !unreachable) {
        (false, true) => Failure::NotInCache { paths: vec![system.clone()], asked },
        (false, false) => Failure::CacheUnreachable { asked, last_lines },
        (true, _) => Failure::FetchFailed { exit: failure.ended.code(), last_lines },
    }
}

/// Whether the substituter has the path; an error if it does not answer.
pub async fn has(tools: &Tools, substituter: &str, path: &StorePath) -> Result<bool, ToolError> {
    match tools.path_info(std::slice::from_ref(path), Reach::Paths, Some(substituter)).await {
        Ok(found) => Ok(!found.known.is_empty()),
        // Older versions say "is not valid" in an error where newer ones answer with an absence.
        Err(ToolError::Exec(ExecError::Failed { last_words, .. })) if last_words.contains("is not valid") => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn says(tools: &Tools, substituter: &str, system: &StorePath) -> Says {
    match has(tools, substituter, system).await {
        Ok(true) => {}
        Ok(false) => return Says::Lacks,
        Err(_) => return Says::Silent,
    }
    match tools.verify(system, Reach::Closures, Some(substituter)).await {
        Ok(Verified::Trusted) => Says::Trusted,
        Ok(Verified::Untrusted(paths)) => Says::Untrusted(paths),
        Ok(Verified::Broken { untrusted, .. }) if !untrusted.is_empty() => Says::Untrusted(untrusted),
        Ok(Verified::Broken { .. }) => Says::Lacks,
        Err(_) => Says::Silent,
    }
}

fn mismatch(settings: NixSettings, paths: Vec<StorePath>, present_before: bool) -> Failure {
    Failure::SignatureMismatch {
        paths,
        trusted_keys: settings.trusted_keys.into_iter().map(|key| key.name).collect(),
        asked: settings.substituters,
        present_before,
    }
}

/// Every path of the closure is signed by a trusted key, or named by its contents.
///
/// A path that came without its signature (copied over by hand, say) may still be the one that a substituter signed:
/// then that signature is added, and counts only if it covers what is really here.
async fn trust(tools: &Tools, order: &Order<'_>, present: bool) -> Result<(), Failure> {
    match order.unsigned {
        Unsigned::Accept => return Ok(()),
        Unsigned::Refuse => {}
    }
    let Some(untrusted) = untrusted_here(tools, order.system).await? else { return Ok(()) };
    let settings = tools.nix_settings().await.unwrap_or_default();
    for substituter in &settings.substituters {
        if tools.copy_sigs(substituter, order.system).await.is_ok()
            && untrusted_here(tools, order.system).await?.is_none()
        {
            return Ok(());
        }
    }
    Err(mismatch(settings, untrusted, present))
}

async fn untrusted_here(tools: &Tools, system: &StorePath) -> Result<Option<Vec<StorePath>>, Failure> {
    match tools.verify(system, Reach::Closures, None).await {
        Ok(Verified::Trusted) => Ok(None),
        Ok(Verified::Untrusted(paths)) => Ok(Some(paths)),
        Ok(Verified::Broken { untrusted, .. }) if !untrusted.is_empty() => Ok(Some(untrusted)),
        Ok(Verified::Broken { words, .. }) => {
            Err(Failure::Corrupt { last_lines: text::last_lines(&words, 12) })
        }
        // Trust that cannot be established is no trust (invariant 9).
        Err(error) => Err(not_asked("cannot verify signatures", &error)),
    }
}

/// The failure of a question to Nix that was not answered. Whoever ended the program from outside said nothing about the
/// target: a stop of our own unit reaches the program before us, a host without memory picks it. Neither did a Nix that
/// hangs (a locked database, a disk that does not answer) or cannot be started now. It is asked again.
pub fn not_asked(what: &str, error: &ToolError) -> Failure {
    match error {
        ToolError::Exec(ExecError::Failed { ended: Ended::Signalled(_), .. }) => {
            Failure::Interrupted { at: Step::Realise }
        }
        ToolError::Exec(
            ExecError::Deadline { .. }
            | ExecError::Stalled { .. }
            | ExecError::Start { .. }
            | ExecError::Lost { .. },
        ) => {
            let said = format!("{what}: {}", chain(error));
            Failure::FetchFailed { exit: None, last_lines: text::last_lines(&said, 12) }
        }
        ToolError::Exec(
            ExecError::Failed { .. } | ExecError::Stopped { .. } | ExecError::TooMuchOutput { .. },
        )
        | ToolError::NotUnderstood { .. } => Failure::Internal { what: format!("{what}: {}", chain(error)) },
    }
}

/// Where a closure that is in the store is signed by a trusted key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// In the store, or nobody asks.
    Here,
    /// Only at a substituter: an activation takes the signatures from there, and looks whether they fit what is here.
    Elsewhere,
}

/// Refuses a closure in the store for the reasons of an activation: trust, contents, kind of machine. For whoever only looks:
/// nothing is written.
pub async fn look(
    tools: &Tools,
    system: &StorePath,
    (unsigned, digest): (Unsigned, Option<&ClosureDigest>),
    architecture: &str,
) -> Result<Signed, Failure> {
    let signed = match unsigned {
        Unsigned::Accept => Signed::Here,
        Unsigned::Refuse => signed(tools, system).await?,
    };
    if let Some(want) = digest {
        has_digest(tools, system, want).await?;
    }
    machine::runs_here(tools, system, architecture).await?;
    Ok(signed)
}

async fn signed(tools: &Tools, system: &StorePath) -> Result<Signed, Failure> {
    let Some(untrusted) = untrusted_here(tools, system).await? else { return Ok(Signed::Here) };
    let settings = tools.nix_settings().await.unwrap_or_default();
    for substituter in &settings.substituters {
        if matches!(says(tools, substituter, system).await, Says::Trusted) {
            return Ok(Signed::Elsewhere);
        }
    }
    Err(mismatch(settings, untrusted, true))
}

/// The digest that a release signed: whoever steals the cache's key can serve other bytes under the same path.
async fn digest(tools: &Tools, order: &Order<'_>) -> Result<(), Failure> {
    let Some(want) = order.digest else { return Ok(()) };
    // What was read as a whole a moment ago is in the store, and what is there stays as it is.
    if matches!(order.seen, Seen::Trusted(got) if got == want) {
        return Ok(());
    }
    has_digest(tools, order.system, want).await
}

async fn has_digest(tools: &Tools, system: &StorePath, want: &ClosureDigest) -> Result<(), Failure> {
    let unreadable = |error: ToolError| not_asked("cannot read the closure", &error);
    let paths = tools.requisites(system).await.map_err(unreadable)?;
    let contents = tools.contents(&paths).await.map_err(unreadable)?;
    let got = closure_digest(contents);
    if got == *want { Ok(()) } else { Err(Failure::ClosureMismatch { want: want.clone(), got }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_ended_from_outside_says_nothing_about_the_target() {
        let failed = |ended| {
            ToolError::Exec(ExecError::Failed {
                line: "nix-store --query".to_owned(),
                ended,
                elapsed: Duration::ZERO,
                last_words: String::new(),
            })
        };
        assert!(not_asked("x", &failed(Ended::Signalled(15))).is_transient());
        assert!(!not_asked("x", &failed(Ended::Exited(1))).is_transient());
    }

    #[test]
    fn a_large_download_over_a_slow_line_has_its_time_and_none_has_for_ever() {
        let hours = |bytes| nix_store::realise_within(bytes).as_secs() / 3_600;
        assert_eq!(hours(0), 24);
        assert_eq!(hours(2 << 30), 24 + 291, "2 GiB at 2 KiB a second are twelve days");
    }

    #[test]
    fn only_a_download_that_stood_still_is_told_as_one() {
        let (line, last_words) = ("nix-store --realise".to_owned(), String::new());
        let stalled = ExecError::Stalled {
            line: line.clone(),
            limit: Duration::from_mins(5),
            last_words: last_words.clone(),
        };
        assert_eq!(not_fetched(&ToolError::Exec(stalled)), Failure::Stalled { after_secs: 300 });
        let limit = nix_store::realise_within(0);
        let too_long = not_fetched(&ToolError::Exec(ExecError::Deadline { line, limit, last_words }));
        assert!(matches!(too_long, Failure::FetchFailed { exit: None, .. }), "{too_long:?}");
        assert!(
            too_long.is_transient() && too_long.last_lines().concat().contains("its deadline"),
            "{too_long:?}"
        );
    }

    #[test]
    fn a_question_that_was_not_answered_is_asked_again_and_says_which_it_was() {
        let (line, limit, last_words) =
            ("nix-store --query".to_owned(), Duration::from_mins(5), String::new());
        let io = || std::io::Error::from_raw_os_error(5);
        for error in [
            ExecError::Deadline { line: line.clone(), limit, last_words: last_words.clone() },
            ExecError::Stalled { line: line.clone(), limit, last_words: last_words.clone() },
            ExecError::Start { line: line.clone(), source: io() },
            ExecError::Lost { line: line.clone(), source: io() },
        ] {
            let failure = not_asked("cannot read the closure", &ToolError::Exec(error));
            assert!(failure.is_transient(), "{failure:?}");
            assert!(failure.last_lines().concat().contains("cannot read the closure"), "{failure:?}");
        }
        let much = ExecError::TooMuchOutput { line, bytes_max: 1 };
        assert!(!not_asked("x", &ToolError::Exec(much)).is_transient());
    }
}
