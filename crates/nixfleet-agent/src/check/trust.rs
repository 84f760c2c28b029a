//! What the agent believes, and what its source serves.

use std::path::Path;

use nixfleet_core::host::event::Refusal;
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::clock::TimeSource;
use nixfleet_trust::trust::{SavedTrust, Trust};

use super::{About, Finding};
use crate::config::Config;
use crate::config::ready::{NotReady, now};
use crate::runtime::state_file::StateFile;
use crate::source::documents::NoAnswer;
use crate::source::look::Found;
use crate::source::place::Place;
use crate::source::refused::Refused;
use nixfleet_sys::fs;
use nixfleet_sys::text::chain;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// A root that expires sooner is warned about: people have to come together to sign the next one.
const ROOT_SOON_MS: u64 = 30 * DAY_MS;
/// A clock that stands so far behind what was signed is wrong; releases are followed all the same.
const CLOCK_BEHIND_MS: u64 = 60_000;

/// What is to be done about a private half that is not there or is of no use.
const BOTH_HALVES: &str =
    "a control plane knows a host by its key: both halves lie beside each other, the public one with `.pub`";

/// Everything about trust: state, root, channel, clock, key, source, release.
pub(super) async fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![host_key(config)];
    findings.extend(config.private_half().and_then(|private| private_half(&private)));
    let now = now();
    let trust = match saved_trust(&config.state_dir) {
        Ok(saved) => config.trust(saved),
        Err(finding) => {
            findings.push(finding);
            // The root is looked at all the same, and the source with it.
            config.trust(None)
        }
    };
    match trust {
        Ok(trust) => {
            findings.extend(root(config, &trust, now));
            findings.push(clock(&trust, now));
            findings.extend(source(config, &trust).await);
        }
        Err(refused) => findings.push(no_trust(config, &refused)),
    }
    findings
}

fn host_key(config: &Config) -> Finding {
    let about = About::HostKey;
    match config.identity() {
        Ok(me) => Finding::good(about, format!("{} has the key {}", me.name, me.key.id())),
        Err(error) => {
            let fix = "start the SSH server once, which makes its key, or set `host-key` to a public key of this host";
            Finding::problem(about, chain(&error), fix)
        }
    }
}

/// The private half of the host's key: whoever can read it can be this host. Only what is there is looked at.
pub(super) fn private_half(file: &Path) -> Option<Finding> {
    let who = fs::others_who_read(&std::fs::metadata(file).ok()?)?;
    let shown = file.display();
    let what = format!("{shown} is the private half of this host's key, and others can read it: {who}");
    let fix = format!(
        "`chown root {shown}; chmod 0600 {shown}`; if somebody may have read it, make a new key and name that in the next release"
    );
    Some(Finding::problem(About::HostKey, what, fix))
}

/// What was saved; `None` only if there is no state at all.
fn saved_trust(folder: &Path) -> Result<Option<SavedTrust>, Finding> {
    let saved = StateFile::in_folder(folder).read().map_err(|error| {
        let what = format!("what was accepted before cannot be read: {}", chain(&error));
        Finding::problem(About::State, what, error.hint())
    })?;
    Ok(saved.and_then(|saved| saved.trust))
}

fn no_trust(config: &Config, refused: &NotReady) -> Finding {
    let (what, about) = (chain(refused), About::Root);
    match refused {
        NotReady::File(error) if error.is_not_found() => {
            let fix = format!("put the fleet's root document at `{}`, or set `root`", config.root.display());
            Finding::problem(about, what, fix)
        }
        NotReady::File(error) if error.is_untrusted() => Finding::problem(
            about,
            what,
            "make it root's, and writable by root only: it decides whom the host trusts",
        ),
        NotReady::Trust(_) => {
            let fix = "compare the document with the fleet's own (`nixfleet root show`); if the state is at fault, a \
                       person has to look";
            Finding::problem(about, what, fix)
        }
        NotReady::File(_)
        | NotReady::HostKey { .. }
        | NotReady::HostKeyWantsTouch(_)
        | NotReady::NoPrivateHalf(_)
        | NotReady::Identity { .. }
        | NotReady::NoAuthority(_) => Finding::problem(about, what, "look at the file"),
    }
}

fn root(config: &Config, trust: &Trust, now: UnixMs) -> Vec<Finding> {
    let about = About::Root;
    let root = trust.root();
    let now = trust.time(now).now();
    let name = format!("root {} of fleet {}", root.version, root.fleet);
    let next = "publish the next root at the source, signed by keys of this one";
    let left = root.expires_ms.ms_since(now);
    let age = if left == 0 {
        let ago = span(now.ms_since(root.expires_ms));
        Finding::problem(about, format!("{name} expired {ago} ago: nothing new is started"), next)
    } else if left < ROOT_SOON_MS {
        Finding::warning(about, format!("{name} expires in {}", span(left)), next)
    } else {
        Finding::good(about, format!("{name} is good for {}", span(left)))
    };
    let mut findings = vec![age];
    if trust.newest_root() > root.version {
        let what = format!(
            "root {} was accepted here before, and only {} can be vouched for",
            trust.newest_root(),
            root.version
        );
        findings.push(Finding::warning(about, what, "the source must have the roots in between"));
    }
    if !root.channels.contains_key(&config.channel) {
        let known: Vec<_> = root.channels.keys().map(ToString::to_string).collect();
        let what = format!("{name} has no channel {}; it has {}", config.channel, known.join(", "));
        findings.push(Finding::problem(
            about,
            what,
            "set `channel` to one of these, or publish a root that has it",
        ));
    }
    findings
}

fn clock(trust: &Trust, now: UnixMs) -> Finding {
    let about = About::Clock;
    let time = trust.time(now);
    let behind = time.now().ms_since(now);
    match time.source() {
        TimeSource::Clock => Finding::good(about, "it is not behind anything that was signed"),
        TimeSource::SignedTime if behind < CLOCK_BEHIND_MS => {
            Finding::good(about, "it is as far as what was signed, within a minute")
        }
        TimeSource::SignedTime => {
            let what = format!("it is {} behind something that was signed", span(behind));
            Finding::problem(about, what, "set it, and see that NTP runs: `timedatectl`")
        }
    }
}

async fn source(config: &Config, trust: &Trust) -> Vec<Finding> {
    let following = match config.following() {
        Ok(following) => following,
        Err(error) => return vec![not_ready(&error, &config.host_key)],
    };
    let place = &config.source;
    match following.look_once(trust).await {
        Found::Nothing(why) => vec![Finding::problem(About::Source, why.to_string(), silent_fix(&why))],
        Found::Refused(refused) => vec![answers(place), refusal(&refused)],
        // Only a look that knows the one before says so.
        Found::Same => vec![answers(place)],
        Found::Release(offer, _) => {
            let terms = &offer.terms;
            let left = terms.expires_ms.ms_since(trust.time(now()).now());
            let what = format!(
                "{} is signed by enough keys and names this host, in wave {}: {}; it is good for {}",
                terms.release,
                terms.wave.name,
                terms.system,
                span(left)
            );
            vec![answers(place), Finding::good(About::Release, what)]
        }
    }
}

/// Why the source cannot be looked at.
pub(super) fn not_ready(error: &NotReady, host_key: &Path) -> Finding {
    match error {
        NotReady::HostKey { .. } | NotReady::HostKeyWantsTouch(_) => not_looked_at(),
        NotReady::File(file) if file.path == host_key => not_looked_at(),
        NotReady::File(file) if file.path == host_key.with_extension("") => {
            Finding::problem(About::HostKey, chain(error), BOTH_HALVES)
        }
        NotReady::NoPrivateHalf(_) | NotReady::Identity { .. } => {
            Finding::problem(About::HostKey, chain(error), BOTH_HALVES)
        }
        NotReady::File(_) | NotReady::NoAuthority(_) | NotReady::Trust(_) => {
            Finding::problem(About::Source, chain(error), "look at the file that `ca-file` names")
        }
    }
}

/// What the key lacks is told where the key is.
fn not_looked_at() -> Finding {
    let what = "it was not looked at: without its key this host does not know what is meant for it";
    Finding::warning(About::Source, what, "mend `host-key`, and check again")
}

fn answers(place: &Place) -> Finding {
    Finding::good(About::Source, format!("{place} answers"))
}

fn silent_fix(why: &NoAnswer) -> &'static str {
    match why {
        NoAnswer::Unreachable { .. } => {
            "see whether the address is right and can be reached from this host (`curl -v`), or whether the folder is there; a \
             server of an authority that this host does not know needs `ca-file` or `pins`"
        }
        NoAnswer::TooSlow { .. } => {
            "see what holds it up: `curl -v` from this host, or a file system that hangs"
        }
        NoAnswer::Status { status: 407, .. } => {
            "the proxy wants a password; see `https_proxy` in the agent's environment"
        }
        NoAnswer::Status { .. } => "see the server's own log",
        NoAnswer::WebPage { .. } => "log in to the network, or correct `source`",
        NoAnswer::NothingPublished { .. } => {
            "publish a release for this channel there, or correct `source` and `channel`"
        }
        NoAnswer::NotLatest { .. } => {
            "publish again with `nixfleet release publish`, which writes it as it must be"
        }
    }
}

fn refusal(refused: &Refused) -> Finding {
    let fix = match refused.kind {
        Refusal::Trust => {
            "look at who publishes there, and at what; the host keeps what it runs, and takes nothing from there until \
             the documents are right"
        }
        Refusal::Expired => "publish a newer release or root; the host keeps what it runs",
        Refusal::Clock => "set the clock of this host, or of whoever signed",
        Refusal::Unreadable => {
            "publish it again as a whole; if this host is not part of the release, add it; if the document is of a newer \
             kind, update the agent"
        }
    };
    Finding::problem(About::Release, refused.why.clone(), fix)
}

/// A span for people, in its largest unit.
fn span(ms: u64) -> String {
    match ms {
        DAY_MS.. => format!("{} days", ms / DAY_MS),
        HOUR_MS.. => format!("{} hours", ms / HOUR_MS),
        _ => format!("{} minutes", ms / 60_000),
    }
}
