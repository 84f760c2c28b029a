//! What a host that follows a release source shows and is told by a person: `status`, `hold`, `unhold`, `retry`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nixfleet_agent::activation::host::HostPaths;
use nixfleet_agent::runtime::notify::in_words;
use nixfleet_agent::runtime::requests::{self, TAKEN_WITHIN, Taken, Wish};
use nixfleet_agent::runtime::state_file::StateFile;
use nixfleet_agent::runtime::timer::now;
use nixfleet_core::activation::outcome::{Failure, FailureClass};
use nixfleet_core::host::HostState;
use nixfleet_core::host::state::{Contact, Hold, Source};
use nixfleet_core::host::waiting::{StateName, WaitingOn};
use nixfleet_core::ids::StorePath;
use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_sys::{clock, fs};
use serde::Serialize;

use super::refusal::{Done, Kind, Refusal};
use super::show::when;
use super::{ByArg, HoldArgs, ui};

/// What is said above the last word of an agent that is not there.
const AWAY: &str = "agent     does not follow at the moment, and what comes here is its last word: `nixfleet-agent check` and \
     `systemctl status nixfleet-agent` say more";

/// Where the host stands, as `status --json` prints it; version 1.
#[derive(Serialize)]
pub(super) struct Follows {
    state: StateName,
    since_ms: UnixMs,
    release: Option<String>,
    system: Option<StorePath>,
    /// A newer one, which is verified and comes when this one is over.
    next: Option<String>,
    /// The release that is done here.
    settled: Option<String>,
    waiting: WaitingOn,
    /// The same in words.
    waiting_for: String,
    failure: Option<Failed>,
    /// Failed here, and not tried again by itself.
    quarantined: Option<StorePath>,
    source: Source,
    hold: Option<Hold>,
    /// When it looks again without being told anything.
    wake_at_ms: Option<UnixMs>,
    /// How many events have changed its state.
    seq: u64,
    /// Whether an agent follows now; otherwise all of this is its last word.
    agent: Agent,
}

/// Whether an agent follows.
#[derive(Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Agent {
    Follows,
    Away,
}

impl Agent {
    /// By the lock that it holds for as long as it follows.
    fn of(state: &Path) -> Self {
        if fs::is_locked(&HostPaths::with_state(state).agent_lock()) { Self::Follows } else { Self::Away }
    }
}

#[derive(Serialize)]
struct Failed {
    class: FailureClass,
    failure: Failure,
    /// The same in words.
    said: String,
}

/// What the state file says; nothing while there is none.
pub(super) fn read(state: &Path) -> Result<Option<Follows>, Refusal> {
    let saved = StateFile::in_folder(state).read()?;
    let saved = saved.filter(|saved| saved.host.setup.is_some());
    Ok(saved.map(|saved| Follows::of(&saved.host, Agent::of(state))))
}

impl Follows {
    fn of(state: &HostState, agent: Agent) -> Self {
        let doing = state.describe(now());
        let failed = |(class, failure): (FailureClass, Failure)| {
            let said = failure.to_string();
            Failed { class, failure, said }
        };
        Self {
            state: doing.state,
            since_ms: doing.since_ms,
            release: doing.release.map(|release| release.to_string()),
            system: doing.system,
            next: state.comes_next().map(ToString::to_string),
            settled: state.settled.as_ref().map(|done| done.terms.release.to_string()),
            waiting_for: doing.waiting.to_string(),
            waiting: doing.waiting,
            failure: doing.failure.map(failed),
            quarantined: state.quarantined().cloned(),
            source: state.source.clone(),
            hold: state.hold.clone(),
            wake_at_ms: doing.wake_at_ms,
            seq: state.seq,
            agent,
        }
    }

    /// A line for each thing that there is to say.
    pub(super) fn lines(&self) -> Vec<String> {
        let none = || "none yet".to_owned();
        let mut lines = Vec::new();
        if self.agent == Agent::Away {
            lines.push(AWAY.to_owned());
        }
        lines.extend([
            format!("release   {}", self.release.clone().unwrap_or_else(none)),
            format!("state     {} since {}", self.state, when(self.since_ms.get())),
            format!("waiting   for {}", self.waiting_for),
        ]);
        lines.extend(self.next.as_ref().map(|next| format!("next      {next}, when this one is over")));
        lines.extend(self.failure.as_ref().map(|failed| format!("failure   {}", failed.said)));
        lines.extend(self.quarantined.as_ref().map(|system| format!("not again {system}")));
        lines.push(format!("source    {}", contact(&self.source.contact)));
        lines.extend(self.source.refused.as_ref().map(|refused| {
            let since = when(refused.since_ms.get());
            format!("refused   {}, since {since}: {}", in_words(refused.kind), refused.why)
        }));
        lines.extend(self.wake_at_ms.map(|at| format!("wakes     at {}", when(at.get()))));
        lines
    }
}

fn contact(contact: &Contact) -> String {
    match contact {
        Contact::NotAsked => "not asked yet".to_owned(),
        Contact::Answers { since_ms } => format!("answers since {}", when(since_ms.get())),
        Contact::Silent { since_ms, why } => format!("silent since {}: {why}", when(since_ms.get())),
    }
}

pub(super) async fn hold(state: &Path, args: HoldArgs) -> Done {
    let HoldArgs { why, span, by } = args;
    let clock = UnixMs::new(clock::unix_ms()).unwrap_or(UnixMs::MAX);
    let until_ms = span.map(|span| clock.plus(whole_secs(span)));
    leave(state, &Wish::Hold { by: who(by), why, until_ms }).await
}

pub(super) async fn unhold(state: &Path, by: ByArg) -> Done {
    leave(state, &Wish::Unhold { by: who(by) }).await
}

pub(super) async fn retry(state: &Path, by: ByArg) -> Done {
    leave(state, &Wish::Retry { by: who(by) }).await
}

fn whole_secs(span: Duration) -> Secs {
    Secs(u32::try_from(span.as_secs()).unwrap_or(u32::MAX))
}

/// Who is at the keyboard, as far as the environment tells; it is for people and decides nothing.
fn who(ByArg { by }: ByArg) -> String {
    let named = |name| std::env::var(name).ok().filter(|user: &String| !user.is_empty());
    by.or_else(|| named("SUDO_USER"))
        .or_else(|| named("USER"))
        .unwrap_or_else(|| "somebody at the host".to_owned())
}

async fn leave(state: &Path, wish: &Wish) -> Done {
    if !rustix::process::geteuid().is_root() {
        let why = "only root may ask this host's agent for something";
        return Err(Refusal::new(Kind::NeedsRoot, why).hint("run it with sudo"));
    }
    let left = requests::leave(state, wish, clock::unix_ms(), TAKEN_WITHIN).await;
    match left.map_err(|error| Refusal::state(&error))? {
        Taken::Yes => {}
        Taken::NotYet => ui::say("left for the agent, which did not come for it yet; it will when it runs"),
    }
    Ok(ExitCode::SUCCESS)
}
