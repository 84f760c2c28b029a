//! `run`: the agent as a service. With a configuration it follows a release source; without one it takes up what was cut
//! off, finishes after a reboot, and otherwise sleeps.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nixfleet_agent::activation::recovery;
use nixfleet_agent::activation::types::{ActivationOutcome, Failure, Observer, Weight};
use nixfleet_agent::activation::unfinished::is_unfinished;
use nixfleet_agent::runtime::notify;
use nixfleet_agent::runtime::rescue::{self, Left, Trouble};
use nixfleet_agent::runtime::start::{self, Ended, NotStarted, Orders};
use nixfleet_core::activation::outcome::Step;
use nixfleet_sys::text::chain;
use nixfleet_sys::watch::FolderWatch;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::check::{ConfigArgs, named_state};
use super::{UNREADABLE, activate::ready, orders, ui};
use nixfleet_agent::activation::ActivationBackend;
use nixfleet_agent::tools::progress::Progress;

/// The net under the folder watch: an agent that died without writing a line wakes nobody.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A living activation writes lines in quick succession; looking once after them is enough.
const SETTLE: Duration = Duration::from_secs(1);
/// Before an end after which the service manager starts us anew, to see whether what was missing is there.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Tells systemd's journal, one line each.
struct Journalled;

impl Observer for Journalled {
    fn step(&self, step: Step) {
        ui::say(&format!("step: {step}"));
    }
    fn fetched(&self, _progress: Progress) {}
    fn remark(&self, weight: Weight, text: &str) {
        ui::say_as(weight, text);
    }
}

/// What ends the agent from outside.
struct Stop {
    term: Signal,
    int: Signal,
}

impl Stop {
    async fn wanted(&mut self) {
        tokio::select! {
            // Safe to cancel: a signal that came stays noted.
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// `usual` is where state is kept if the configuration does not say, or cannot be read.
pub(crate) async fn run<B: ActivationBackend + Send + 'static>(
    args: ConfigArgs,
    state_dir: Option<&PathBuf>,
    usual: &Path,
) -> ExitCode {
    let orders = orders::read(&args, state_dir);
    let state = match &orders {
        Ok(Some((_, state))) => state.clone(),
        Ok(None) => usual.to_owned(),
        // What was cut off lies where the file says, whatever else is wrong in it.
        Err(_) => named_state(&args, state_dir).unwrap_or_else(|| usual.to_owned()),
    };
    let backend: B = match ready(&state) {
        Ok(backend) => backend,
        Err(refusal) => {
            let code = refusal.tell();
            // What is missing may be there in a moment, and nobody is served by a line every second. A signal ends this.
            if notify::is_a_unit() {
                sleep(AGAIN_AFTER).await;
            }
            return code;
        }
    };
    let voice: Arc<dyn Observer> = Arc::new(Journalled);
    let (Ok(term), Ok(int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return ui::refuse(1, "cannot listen for signals", None);
    };
    let stop = Stop { term, int };
    match orders {
        Ok(Some((orders, _))) => follow(backend, orders, &voice, stop).await,
        Ok(None) if rescue::is_the_machines(&backend).await => {
            let trouble = Trouble::Lasting { why: "it has no configuration".to_owned() };
            give_up(&backend, (&trouble, ExitCode::FAILURE), &voice, stop).await
        }
        Ok(None) => alone(&backend, &args, &voice, stop).await,
        Err(refused) => {
            let code = refused.refuse();
            give_up(&backend, (&refused.trouble(), code), &voice, stop).await
        }
    }
}

async fn follow<B: ActivationBackend + Send + 'static>(
    backend: B,
    orders: Orders,
    voice: &Arc<dyn Observer>,
    mut stop: Stop,
) -> ExitCode {
    let backend = Arc::new(backend);
    let ended = tokio::select! {
        // Dropped at any of its waits, it goes on from its files at the next start; the switch itself is not ours to end.
        ended = start::run(Arc::clone(&backend), orders, Arc::clone(voice)) => ended,
        () = stop.wanted() => {
            notify::stopping();
            return ExitCode::SUCCESS;
        }
    };
    match ended {
        Ok(Ended::HandedOver(other)) => {
            notify::stopping();
            ui::say(&format!("making way for {other}"));
            ExitCode::SUCCESS
        }
        Ok(Ended::WorkersGone) => ui::refuse(70, "every worker is gone", None),
        Err(error) => {
            let why = chain(&error);
            let (code, trouble) = if error.is_lasting() {
                (UNREADABLE, Trouble::Lasting { why: why.clone() })
            } else {
                (1, Trouble::Passing)
            };
            let code = ui::refuse(code, &why, Some(error.hint()));
            match error {
                NotStarted::Another => code,
                NotStarted::File(_)
                | NotStarted::State(_)
                | NotStarted::Trust(_)
                | NotStarted::Log(_)
                | NotStarted::Host(_)
                | NotStarted::Tools(_)
                | NotStarted::Thread(_) => give_up(&*backend, (&trouble, code), voice, stop).await,
            }
        }
    }
}

/// The end of an agent that cannot follow. What was cut off is not left half-done, for which it says that it is up: a start
/// that takes as long as a switch would be cut off itself, and holds up the boot that it waits for. Otherwise its start has
/// failed, and whoever asked for it sees that.
async fn give_up<B: ActivationBackend>(
    backend: &B,
    (trouble, code): (&Trouble, ExitCode),
    voice: &Arc<dyn Observer>,
    mut stop: Stop,
) -> ExitCode {
    if is_unfinished(backend.host()) {
        notify::ready();
    }
    notify::status("cannot follow its releases; its journal says why");
    let mut alive = notify::alive_every();
    let tidied = tokio::select! {
        // Cut off anywhere, the journal says where to go on.
        tidied = rescue::tidy(backend, trouble, voice) => tidied,
        () = tell_alive(&mut alive) => return code,
        () = stop.wanted() => return ExitCode::SUCCESS,
    };
    let again = match &tidied {
        Ok(Left::Settled(_)) | Err(_) => *trouble == Trouble::Passing,
        // Whoever ends the trial may bring back what can be read, and must not find that nobody is started any more.
        Ok(Left::Tried | Left::WentBack(_)) => true,
    };
    tell(tidied.map(|left| match left {
        Left::Settled(outcome) => outcome.map(|outcome| *outcome),
        Left::WentBack(outcome) => Some(*outcome),
        Left::Tried => None,
    }));
    if !again {
        return code;
    }
    // Nobody is served by a line every second.
    if notify::is_a_unit() {
        let _ = timeout(AGAIN_AFTER, stop.wanted()).await;
    }
    ExitCode::FAILURE
}

async fn alone<B: ActivationBackend>(
    backend: &B,
    args: &ConfigArgs,
    observer: &Arc<dyn Observer>,
    mut stop: Stop,
) -> ExitCode {
    notify::ready();
    notify::status("follows no source; watching over activations");
    let mut watch = nixfleet_sys::fs::make_dir(&backend.host().state)
        .ok()
        .and_then(|()| FolderWatch::new(&[&backend.host().state]).ok());
    let mut alive = notify::alive_every();
    let mut first = true;
    loop {
        notify::alive();
        let needed = std::mem::take(&mut first) || is_unfinished(backend.host());
        tokio::select! {
            // Cut off anywhere, the journal says where to go on; the switch itself is not ours to end.
            () = look(backend, observer), if needed => {}
            () = std::future::ready(()), if !needed => {}
            () = tell_alive(&mut alive) => {}
            () = stop.wanted() => return ExitCode::SUCCESS,
        }
        if notify::is_a_unit() && !orders::says_nothing(args) {
            ui::say("there is a configuration now; starting anew with it");
            return ExitCode::SUCCESS;
        }
        tokio::select! {
            // A lost wake-up is only a later round.
            () = changed(&mut watch) => {}
            () = stop.wanted() => return ExitCode::SUCCESS,
        }
    }
}

/// Keeps the watchdog quiet for as long as it is polled; never returns.
async fn tell_alive(every: &mut Option<Duration>) {
    match every {
        Some(every) => loop {
            sleep(*every).await;
            notify::alive();
        },
        None => std::future::pending().await,
    }
}

async fn look(backend: &impl ActivationBackend, observer: &Arc<dyn Observer>) {
    tell(recovery::recover(backend, observer).await);
}

/// Says what became of what was cut off.
fn tell(taken_up: Result<Option<ActivationOutcome>, Failure>) {
    match taken_up {
        Ok(Some(ActivationOutcome { verdict, target, .. })) => {
            ui::say_as(Weight::of(&verdict), &format!("{verdict}: {target}"));
        }
        Ok(None) | Err(Failure::Busy { .. }) => {}
        Err(failure) => ui::say_as(Weight::Error, &format!("error: {failure}")),
    }
}

async fn changed(watch: &mut Option<FolderWatch>) {
    match watch {
        Some(folders) => match timeout(LOOK_EVERY, folders.changed()).await {
            Ok(Ok(())) => sleep(SETTLE).await,
            Ok(Err(_)) => *watch = None,
            Err(_) => {}
        },
        None => sleep(LOOK_EVERY).await,
    }
}
