//! The fleet as it changes. What changes is learned from the control plane's stream of events; what is shown is asked for
//! anew, at most once a second, however much happens.
//!
//! On a terminal the screen is drawn over itself. Elsewhere each thing that changed is a line, so that a log stays
//! readable.

use std::collections::BTreeMap;
use std::time::Duration;

use console::{Term, truncate_str};
use nixfleet::remote::NotAnswered;
use nixfleet::remote::live::{Live, Next};
use nixfleet_core::model::time::Date;
use nixfleet_core::wire::people::TroubleView;
use nixfleet_core::wire::rollouts::RolloutView;
use nixfleet_sys::text::one_line;
use tokio::sync::watch::{Sender, channel};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Asking, Done, Known, Output, Page, know, screen, ui};
use crate::cli::asking::complain;
use crate::cli::rollout;
use crate::cli::ui::table::wrap;

/// The shortest time between two questions.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The longest: waves open and soaks end although no event says so.
const ASK_AT_LEAST_EVERY: Duration = Duration::from_secs(15);

/// What the stream says.
#[derive(Debug, Default)]
struct Heard {
    /// How many things.
    news: u64,
    /// Why it is broken, while it is.
    trouble: Option<String>,
    /// Why it is of no use to go on.
    end: Option<NotAnswered>,
}

pub(super) async fn watch(server: &Asking, output: Output) -> Done {
    let mut known = know(server).await?;
    let (heard, mut hearing) = channel(Heard::default());
    tokio::spawn(hear(Live::after(server.remote().clone(), known.fleet.newest_event), heard));
    let mut shown = Shown::new(output);
    shown.show(&known, None)?;
    let mut asked = Instant::now();
    loop {
        // A silence is news too: waves open and soaks end without an event. Closed means that it ended, which it said.
        let _ = timeout_at(asked + ASK_AT_LEAST_EVERY, hearing.changed()).await;
        sleep_until(asked + ASK_EVERY).await;
        asked = Instant::now();
        let mut trouble = {
            let heard = hearing.borrow_and_update();
            if let Some(end) = &heard.end {
                return Err(complain(end));
            }
            heard.trouble.clone()
        };
        match know(server).await {
            Ok(now) => known = now,
            // The stream says when it is over.
            Err(complaint) if complaint.is_unreachable() => trouble = Some(complaint.what().to_owned()),
            Err(complaint) => return Err(complaint),
        }
        shown.show(&known, trouble.as_deref())?;
        if ui::is_stdout_gone() {
            return Ok(());
        }
    }
}

/// Follows the stream as fast as it comes, so that the control plane never waits for a screen.
async fn hear(mut live: Live, heard: Sender<Heard>) {
    loop {
        let next = live.next().await;
        heard.send_modify(|heard| heard.news += 1);
        match next {
            Ok(Next::Event(_)) => {}
            Ok(Next::Back) => heard.send_modify(|heard| heard.trouble = None),
            Ok(Next::Broke(why)) => heard.send_modify(|heard| heard.trouble = Some(why.said())),
            Err(error) => return heard.send_modify(|heard| heard.end = Some(error)),
        }
    }
}

/// What is on the screen, or was said.
enum Shown {
    /// A terminal, and how many lines of it are ours.
    Screen { term: Term, lines: usize },
    /// Plain lines, and what was said last of each rollout.
    Lines { said: BTreeMap<String, String>, trouble: bool },
    /// Documents.
    Json { last: Option<Known> },
    /// Names of rollouts that changed.
    Names { last: Option<Known> },
}

impl Shown {
    fn new(output: Output) -> Self {
        let term = Term::stdout();
        match output {
            Output::Table if term.is_term() => Self::Screen { term, lines: 0 },
            Output::Table => Self::Lines { said: BTreeMap::new(), trouble: false },
            Output::Json => Self::Json { last: None },
            Output::Name => Self::Names { last: None },
        }
    }

    fn show(&mut self, known: &Known, trouble: Option<&str>) -> Done {
        match self {
            Self::Screen { term, lines } => {
                let new = fitting(term, known, trouble);
                // One write, so that nothing flickers.
                let clear = if *lines > 0 { format!("\u{1b}[{lines}A\u{1b}[J") } else { String::new() };
                term.write_str(&format!("{clear}{}\n", new.join("\n")))?;
                *lines = new.len();
            }
            Self::Lines { said, trouble: was } => {
                say_changes(said, known);
                if let (Some(trouble), false) = (trouble, *was) {
                    ui::say(&format!("{trouble}; trying again"));
                }
                *was = trouble.is_some();
            }
            Self::Json { last } => {
                if last.as_ref() != Some(known) {
                    ui::json(known)?;
                    *last = Some(known.clone());
                }
            }
            Self::Names { last } => {
                let before = last.replace(known.clone());
                let is_new =
                    |one: &&RolloutView| before.as_ref().is_none_or(|was| !was.rollouts.contains(one));
                ui::lines(known.rollouts.iter().filter(is_new).map(|one| &one.rollout));
            }
        }
        Ok(())
    }
}

/// The screen, cut to the terminal's height, with the last word about the line to the control plane.
fn fitting(term: &Term, known: &Known, trouble: Option<&str>) -> Vec<String> {
    let (height, width) = term.size();
    let page = Page::stdout();
    let mut lines = screen(known, page);
    let foot = match trouble {
        None => format!(
            "event {}, {}",
            known.fleet.newest_event,
            crate::cli::now().map(|now| Date(now).to_string()).unwrap_or_default()
        ),
        Some(trouble) => format!("as of event {}; {trouble}; trying again", known.fleet.newest_event),
    };
    let foot = wrap(&one_line(&foot, usize::MAX), usize::from(width).max(1));
    // The last line is the cursor's.
    let room = usize::from(height).saturating_sub(foot.len() + 2).max(1);
    if lines.len() > room {
        let more = lines.len() + 1 - room;
        lines.truncate(room - 1);
        lines.push(format!("… {more} lines more: `nixfleet status`"));
    }
    lines.push(String::new());
    lines.extend(foot);
    // A line that the terminal breaks would be two, and the next screen would begin a line too low.
    lines.iter().map(|line| truncate_str(line, usize::from(width).max(1), "…").into_owned()).collect()
}

/// A line for each rollout of which something else is to be said than before, and for each failure that is new.
fn say_changes(said: &mut BTreeMap<String, String>, known: &Known) {
    let time = crate::cli::now().map(|now| Date(now).to_string()).unwrap_or_default();
    for (about, words) in words(known) {
        if said.get(&about) != Some(&words) {
            ui::data(&format!("{time}  {about}  {words}"));
            said.insert(about, words);
        }
    }
}

fn words(known: &Known) -> Vec<(String, String)> {
    let of = |one: &RolloutView| {
        let counts = &one.hosts;
        let open = one.waves.iter().filter(|wave| wave.opened_ms.is_some()).count();
        let line = format!(
            "wave {open} of {}, {} of {} done, {} moving, {} waiting, {} failed; {}",
            one.waves.len(),
            counts.done,
            counts.total,
            counts.moving + counts.soaking,
            counts.waiting + counts.offline,
            counts.failed,
            rollout::waits(one)
        );
        let failure = |failure: &nixfleet_core::wire::rollouts::FailureView| {
            (
                format!("{} {}", one.rollout, failure.host),
                format!("failed ({}): {}", failure.how, failure.text),
            )
        };
        let mut all = vec![(one.rollout.clone(), line)];
        all.extend(one.failures.iter().map(failure));
        all
    };
    let mut all: Vec<_> = known.rollouts.iter().flat_map(of).collect();
    if known.rollouts.is_empty() {
        let states = known.fleet.hosts.iter().map(|(channel, states)| {
            let words: Vec<_> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
            (channel.clone(), words.join(", "))
        });
        all.extend(states);
    }
    let trouble = |one: &TroubleView| (format!("ALARM since {}", Date(one.since_ms)), one.text.clone());
    all.extend(known.fleet.troubles.iter().map(trouble));
    all
}
