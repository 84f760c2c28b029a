//! A person's wishes at the host: `hold`, `unhold` and `retry`, as files in the state folder, which only root can write.
//!
//! There is no listener. A file is written whole by the verb, taken in by the agent, and removed when what follows from it
//! is saved; the verb waits for that. So a wish survives a crash, and one that is made while no agent runs is taken in at
//! the next start. One that is taken in twice after a crash says the same twice, which changes nothing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_core::host::Event;
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::fs::{self, FsError};
use nixfleet_sys::text;
use nixfleet_sys::timer::timeout_at;
use nixfleet_sys::watch::FolderWatch;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::activation::types::{Observer, Weight};
use crate::runtime::input::Input;
use crate::runtime::net::Net;

/// The longest text of a person: a line or two.
pub const TEXT_CHARS_MAX: usize = 500;
/// A wish is some hundred bytes; nothing larger is ours.
const BYTES_MAX: u64 = 16 << 10;
/// How long a verb waits for the agent to take its wish in: it does so within milliseconds if it runs.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks of a verb.
const TAKEN_EVERY: Duration = Duration::from_millis(20);

/// What a person at the host may want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Wish {
    /// Keep the host where it is.
    Hold {
        /// Who.
        by: String,
        /// Why.
        why: String,
        /// Until then; `None` until somebody lets it go.
        until_ms: Option<UnixMs>,
    },
    /// Let it go.
    Unhold {
        /// Who.
        by: String,
    },
    /// Try what failed again.
    Retry {
        /// Who.
        by: String,
    },
}

impl Wish {
    /// That it was uttered, as a fact. Texts are cut to what is printable and short.
    pub fn into_event(self) -> Event {
        match self {
            Self::Hold { by, why, until_ms } => Event::Held { by: short(&by), why: short(&why), until_ms },
            Self::Unhold { by } => Event::Unheld { by: short(&by) },
            Self::Retry { by } => Event::RetryAsked { by: short(&by) },
        }
    }
}

/// A person's text, cut to what is printable and short.
pub(crate) fn short(said: &str) -> String {
    text::one_line(said, TEXT_CHARS_MAX)
}

/// The folder of wishes in a state folder.
pub fn folder(state: &Path) -> PathBuf {
    state.join("requests")
}

/// What became of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The agent has it.
    Yes,
    /// It did not come for it yet: it is not running, or not following a source.
    NotYet,
}

/// Leaves a wish for the agent, and waits for as long as `patience` for it to be taken in. `now_ms` and the process id name
/// the file, so that wishes are taken in their order.
pub async fn leave(state: &Path, wish: &Wish, now_ms: u64, patience: Duration) -> Result<Taken, FsError> {
    let folder = folder(state);
    fs::make_dir(&folder)?;
    let path = folder.join(format!("{now_ms:016}-{}.json", std::process::id()));
    let bytes = serde_json::to_vec(wish).expect("texts and numbers are always JSON");
    fs::write_atomic(&path, &bytes)?;
    let give_up = Instant::now() + patience;
    while Instant::now() < give_up {
        if !path.exists() {
            return Ok(Taken::Yes);
        }
        sleep(TAKEN_EVERY).await;
    }
    Ok(if path.exists() { Taken::NotYet } else { Taken::Yes })
}

/// Between two attempts to watch the folder.
const WATCH_AGAIN: Duration = Duration::from_secs(10);

/// Tells the reducer of wishes for as long as it lives.
pub async fn watch(
    (state, net): (PathBuf, Net),
    inputs: mpsc::Sender<Input>,
    voice: std::sync::Arc<dyn Observer>,
) {
    let folder = folder(&state);
    let mut watch = None;
    let mut told = Vec::new();
    loop {
        if watch.is_none() {
            watch = fs::make_dir(&folder).ok().and_then(|()| FolderWatch::new(&[&folder]).ok());
        }
        let waiting = waiting(&folder);
        // What is gone was saved; what stays was told once and is not told again by this process.
        told.retain(|path| waiting.contains(path));
        for path in waiting {
            if told.contains(&path) {
                continue;
            }
            match read(&path) {
                Ok(wish) => {
                    let asked = Input::Asked { event: wish.into_event(), request: path.clone() };
                    // Closed: the reducer is gone.
                    if inputs.send(asked).await.is_err() {
                        return;
                    }
                    told.push(path);
                }
                Err(why) => {
                    let why = format!("error: `{}` is no wish and is removed: {why}", path.display());
                    voice.remark(Weight::Warning, &why);
                    let _ = fs::remove(&path);
                }
            }
        }
        match &mut watch {
            // A lost wake-up is only a later round.
            Some(folders) => {
                if let Ok(Err(_)) = timeout_at(net.next(), folders.changed()).await {
                    watch = None;
                }
            }
            None => sleep(WATCH_AGAIN).await,
        }
    }
}

/// The wishes in the folder, oldest first. A file that is being written has another name.
fn waiting(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        path.extension() == Some(OsStr::new("json")) && !hidden
    };
    let mut out: Vec<PathBuf> = files.filter(ours).collect();
    out.sort();
    out
}

fn read(path: &Path) -> Result<Wish, String> {
    let bytes = fs::read_bounded(path, BYTES_MAX).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| text::printable(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::types::Silent;
    use std::sync::Arc;

    /// What a test waits for that is taken.
    const LONG: Duration = Duration::from_mins(1);

    fn hold(why: &str) -> Wish {
        Wish::Hold { by: "ann".into(), why: why.into(), until_ms: None }
    }

    #[tokio::test]
    async fn wishes_are_told_in_their_order_and_the_verb_learns_that_they_were_taken() {
        let dir = tempfile::tempdir().expect("a folder");
        let (inputs, mut reducer) = mpsc::channel(4);
        let watching = tokio::spawn(watch((dir.path().to_owned(), Net::begin(0)), inputs, Arc::new(Silent)));
        let taking = tokio::spawn(async move {
            let mut events = Vec::new();
            while events.len() < 2 {
                let Some(Input::Asked { event, request }) = reducer.recv().await else { break };
                fs::remove(&request).expect("removed");
                events.push(event);
            }
            events
        });
        let first = leave(dir.path(), &hold("exams"), 1_000, LONG).await.expect("left");
        let second = leave(dir.path(), &Wish::Unhold { by: "ann".into() }, 2_000, LONG).await.expect("left");
        assert_eq!((first, second), (Taken::Yes, Taken::Yes));
        let events = taking.await.expect("no panic");
        assert_eq!(events.iter().map(Event::name).collect::<Vec<_>>(), ["held", "unheld"]);
        watching.abort();
    }

    #[tokio::test]
    async fn a_wish_without_an_agent_stays_for_the_next_start() {
        let dir = tempfile::tempdir().expect("a folder");
        let patience = Duration::from_millis(50);
        let taken = leave(dir.path(), &hold("exams"), 5, patience).await.expect("left");
        assert_eq!(taken, Taken::NotYet);
        assert_eq!(waiting(&folder(dir.path())).len(), 1);
    }

    #[test]
    fn what_is_no_wish_is_refused_and_texts_are_cut() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("1.json");
        for bad in ["", "{}", "{\"wish\":\"reboot\"}", "{\"wish\":\"retry\",\"by\":\"a\",\"more\":1}"] {
            fs::write_atomic(&path, bad.as_bytes()).expect("written");
            assert!(read(&path).is_err(), "{bad}");
        }
        let Event::Held { why, .. } = hold(&"x\n".repeat(1_000)).into_event() else { panic!("it is a hold") };
        assert!(why.chars().count() <= TEXT_CHARS_MAX && !why.contains('\n'));
    }
}
