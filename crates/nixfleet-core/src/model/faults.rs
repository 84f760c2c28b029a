//! What can be wrong with a release or an entry although every field can be read: found all at once.
//!
//! The command line asks before anything is signed, and a host asks again: a signature says who wrote a policy, not that
//! the policy makes sense.

use std::collections::BTreeSet;

use super::names::{HostKey, ProbeName, WaveName};
use super::policy::{Policy, WaveIndex};
use super::probe::{
    ExecProbe, HttpProbe, MetricProbe, ProbeKind, ProbeSpec, Redirects, TcpProbe, TlsTrust, UnitProbe,
};
use super::release::{Entry, Release};
use super::schedule::Hook;
use super::select::{Amount, Selector};
use super::time::Secs;

/// The most keys of a host: the old one and the new one while they change.
pub const HOST_KEYS_MAX: usize = 2;

/// One thing that is wrong with a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseFault {
    /// It ends before it begins.
    #[error("it expires before it was made")]
    ExpiresBeforeCreated,
    /// Nobody to release to.
    #[error("it has no hosts")]
    NoHosts,
    /// A rollout needs a wave.
    #[error("its policy has no waves")]
    NoWaves,
    /// Two waves with one name.
    #[error("two waves are called {0}")]
    WaveNameTwice(WaveName),
    /// Waves open in their order.
    #[error("wave {0} would open before the one in front of it")]
    WaveBeforeItsTurn(WaveName),
    /// Nothing could ever be on its way.
    #[error("the budget of {0} lets no host move")]
    BudgetOfNobody(Selector),
    /// Nothing could ever be fetched.
    #[error("its `stage_in_flight` lets no host fetch")]
    NobodyMayFetch,
    /// No host could ever be confirmed.
    #[error("nothing can be confirmed within 0 s")]
    NoTimeToConfirm,
    /// A hook that cannot be run.
    #[error("a reboot hook {0}")]
    Hook(ProgramFault),
}

/// Why a command line cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProgramFault {
    /// Nothing to run.
    #[error("names no program")]
    Missing,
    /// Found by a search path, which differs between hosts (lesson 12).
    #[error("names a program without its absolute path")]
    NotAbsolute,
    /// A zero byte cannot be passed to a program.
    #[error("has a zero byte in its command line")]
    ZeroByte,
    /// It would be ended at once.
    #[error("may run for 0 s")]
    NoTime,
}

/// One thing that is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// A host without a key could not be told from another.
    #[error("it has no key")]
    NoKey,
    /// More keys than a change of keys needs.
    #[error("it has {0} keys, and {HOST_KEYS_MAX} are allowed")]
    TooManyKeys(usize),
    /// A key twice.
    #[error("it has the key {0} twice")]
    KeyTwice(HostKey),
    /// A wave that the policy does not have.
    #[error("it is in wave {wave}, and there are {waves}")]
    NoSuchWave {
        /// The wave.
        wave: WaveIndex,
        /// How many there are.
        waves: usize,
    },
    /// Two probes with one name.
    #[error("two probes are called {0}")]
    ProbeNameTwice(ProbeName),
    /// A probe that cannot be run.
    #[error("probe {probe} {fault}")]
    Probe {
        /// Its name.
        probe: ProbeName,
        /// What is wrong with it.
        fault: ProbeFault,
    },
}

/// Why a probe cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFault {
    /// It would run without a pause.
    #[error("has an interval of 0 s")]
    NoInterval,
    /// It would always fail.
    #[error("has a timeout of 0 s")]
    NoTimeout,
    /// It would have failed before it ran.
    #[error("counts as failed after 0 failures")]
    NoFailures,
    /// Neither `http://` nor `https://`, or nothing behind it.
    #[error("has a URL that is not http:// or https:// and a host")]
    Url,
    /// Not `host:port`.
    #[error("has an address that is not host:port")]
    Address,
    /// No status is good.
    #[error("has a range of statuses that is empty or outside of 100 to 599")]
    Status,
    /// A file of authorities that no host can find.
    #[error(
        "names a `ca-file` that is not an absolute path of at most 4096 bytes without a control character"
    )]
    CaFile,
    /// A file of authorities, and nobody who would have to show a certificate.
    #[error(
        "names a `ca-file` and asks an http:// address, where nobody shows a certificate; write https://"
    )]
    CaFileWithoutTls,
    /// A redirect is what is wanted, and what is never seen.
    #[error("follows redirects, and takes nothing but a redirect for good; leave out one of the two")]
    FollowsWhatIsWanted,
    /// A text that every answer contains.
    #[error("looks for an empty text")]
    EmptyText,
    /// No unit.
    #[error("has a unit name without a suffix, or one that systemd would not take")]
    Unit,
    /// No metric.
    #[error("names no metric")]
    Metric,
    /// A program that cannot be run.
    #[error("{0}")]
    Program(ProgramFault),
}

impl Release {
    /// Everything that is wrong with it, at once.
    pub fn faults(&self) -> Vec<ReleaseFault> {
        let mut faults = Vec::new();
        if self.expires_ms <= self.created_ms {
            faults.push(ReleaseFault::ExpiresBeforeCreated);
        }
        if self.hosts == 0 {
            faults.push(ReleaseFault::NoHosts);
        }
        faults.extend(self.policy.faults());
        faults
    }
}

impl Policy {
    /// Everything that is wrong with it, at once.
    pub fn faults(&self) -> Vec<ReleaseFault> {
        let mut faults = Vec::new();
        if self.waves.is_empty() {
            faults.push(ReleaseFault::NoWaves);
        }
        let mut names = BTreeSet::new();
        let mut opens = Secs(0);
        for wave in &self.waves {
            if !names.insert(&wave.name) {
                faults.push(ReleaseFault::WaveNameTwice(wave.name.clone()));
            }
            if wave.opens_after_secs < opens {
                faults.push(ReleaseFault::WaveBeforeItsTurn(wave.name.clone()));
            }
            opens = opens.max(wave.opens_after_secs);
        }
        let nobody = |limit| matches!(limit, Amount::Count(0) | Amount::Percent(0));
        let idle = self.max_in_flight.iter().filter(|budget| nobody(budget.limit));
        faults.extend(idle.map(|budget| ReleaseFault::BudgetOfNobody(budget.hosts.clone())));
        if self.stage_in_flight.is_some_and(nobody) {
            faults.push(ReleaseFault::NobodyMayFetch);
        }
        if self.confirm_within_secs == Secs(0) {
            faults.push(ReleaseFault::NoTimeToConfirm);
        }
        let hooks = self.reboot.before.iter().chain(&self.reboot.after);
        faults.extend(hooks.filter_map(hook_fault).map(ReleaseFault::Hook));
        faults
    }
}

fn hook_fault(hook: &Hook) -> Option<ProgramFault> {
    let no_time = (hook.deadline_secs == Secs(0)).then_some(ProgramFault::NoTime);
    program_fault(&hook.argv).or(no_time)
}

fn program_fault(argv: &[String]) -> Option<ProgramFault> {
    let Some(program) = argv.first() else { return Some(ProgramFault::Missing) };
    if !program.starts_with('/') {
        Some(ProgramFault::NotAbsolute)
    } else if argv.iter().any(|word| word.contains('\0')) {
        Some(ProgramFault::ZeroByte)
    } else {
        None
    }
}

impl Entry {
    /// Everything that is wrong with it in a release with `policy`, at once.
    pub fn faults(&self, policy: &Policy) -> Vec<EntryFault> {
        let mut faults = Vec::new();
        match self.keys.as_slice() {
            [] => faults.push(EntryFault::NoKey),
            [one, other] if one == other => faults.push(EntryFault::KeyTwice(one.clone())),
            [_] | [_, _] => {}
            more => faults.push(EntryFault::TooManyKeys(more.len())),
        }
        if policy.wave(self.wave).is_none() {
            faults.push(EntryFault::NoSuchWave { wave: self.wave, waves: policy.waves.len() });
        }
        let mut names = BTreeSet::new();
        for probe in &self.probes {
            if !names.insert(&probe.name) {
                faults.push(EntryFault::ProbeNameTwice(probe.name.clone()));
            }
            let of_probe = |fault| EntryFault::Probe { probe: probe.name.clone(), fault };
            faults.extend(probe.faults().into_iter().map(of_probe));
        }
        faults
    }
}

impl ProbeSpec {
    /// Everything that is wrong with it, at once.
    pub fn faults(&self) -> Vec<ProbeFault> {
        let Self { name: _, kind, mode: _, interval_secs, timeout_secs, after_secs: _, failures } = self;
        let mut faults = kind_faults(kind);
        if *interval_secs == Secs(0) {
            faults.push(ProbeFault::NoInterval);
        }
        if *timeout_secs == Secs(0) {
            faults.push(ProbeFault::NoTimeout);
        }
        if *failures == 0 {
            faults.push(ProbeFault::NoFailures);
        }
        faults
    }
}

fn kind_faults(kind: &ProbeKind) -> Vec<ProbeFault> {
    let mut faults = match kind {
        ProbeKind::Http(HttpProbe { url, tls, redirects, .. })
        | ProbeKind::HttpMetric(MetricProbe { url, tls, redirects, .. }) => {
            asked_faults(url, tls, *redirects)
        }
        ProbeKind::Tcp(_) | ProbeKind::Exec(_) | ProbeKind::Unit(_) => Vec::new(),
    };
    let mut fault_if = |wrong: bool, fault| {
        if wrong {
            faults.push(fault);
        }
    };
    match kind {
        ProbeKind::Http(HttpProbe { url: _, status, body_contains, tls: _, redirects }) => {
            let only_redirects = status.min >= 300 && status.max < 400;
            fault_if(*redirects == Redirects::Follow && only_redirects, ProbeFault::FollowsWhatIsWanted);
            let good = status.min <= status.max && status.min >= 100 && status.max <= 599;
            fault_if(!good, ProbeFault::Status);
            fault_if(body_contains.as_deref() == Some(""), ProbeFault::EmptyText);
        }
        ProbeKind::Tcp(TcpProbe { address }) => fault_if(!is_address(address), ProbeFault::Address),
        ProbeKind::Exec(ExecProbe { argv }) => {
            if let Some(fault) = program_fault(argv) {
                fault_if(true, ProbeFault::Program(fault));
            }
        }
        ProbeKind::Unit(UnitProbe { unit }) => fault_if(!is_unit(unit), ProbeFault::Unit),
        ProbeKind::HttpMetric(MetricProbe { url: _, tls: _, redirects: _, metric, good: _ }) => {
            fault_if(metric.trim().is_empty(), ProbeFault::Metric);
        }
    }
    faults
}

/// What is wrong with whom an HTTP probe asks and believes.
fn asked_faults(url: &str, tls: &TlsTrust, redirects: Redirects) -> Vec<ProbeFault> {
    let mut faults = Vec::new();
    if !is_url(url) {
        faults.push(ProbeFault::Url);
    }
    match tls {
        TlsTrust::SystemRoots | TlsTrust::PinnedKey(_) => {}
        TlsTrust::CaFile(path) if !is_path(path) => faults.push(ProbeFault::CaFile),
        TlsTrust::CaFile(_) => match redirects {
            Redirects::Refuse if url.starts_with("http://") => faults.push(ProbeFault::CaFileWithoutTls),
            Redirects::Refuse | Redirects::Follow => {}
        },
    }
    faults
}

/// An absolute path, as Linux takes them.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= 4096 && !text.contains(char::is_control)
}

/// Printable ASCII, with a scheme and something behind it; the client that asks says the rest.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(|byte| byte.is_ascii_graphic())
    })
}

/// `host:port`; an IPv6 address stands in brackets.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let host_good = !host.is_empty()
        && (bracketed || !host.contains(':'))
        && host.bytes().all(|byte| byte.is_ascii_graphic());
    host_good && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p != 0)
}

/// A name and a suffix, of the characters that systemd takes, at most 255 of them.
fn is_unit(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    let parts = text.rsplit_once('.');
    text.len() <= 255
        && !text.starts_with('-')
        && text.bytes().all(plain)
        && parts.is_some_and(|(name, suffix)| !name.is_empty() && !suffix.is_empty())
}
