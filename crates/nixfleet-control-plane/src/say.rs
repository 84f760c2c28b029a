//! One line to stderr for each thing that an operator would put into a report; systemd's journal adds time and unit.

use std::error::Error;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nixfleet_sys::text::chain;

/// Says something. Nobody listening is no error.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says that something failed, with all its causes.
pub fn error(what: &str, error: &(dyn Error + 'static)) {
    line(&format!("error: {what}: {}", chain(error)));
}

/// What is said again and again is said once in so long.
const AGAIN_AFTER: Duration = Duration::from_mins(1);
/// Different things that are kept in mind for that; the oldest is forgotten, and said again when it comes again.
const KEPT_MAX: usize = 16;

/// [`error`] for what may come with each request: the same is said once a minute, and how often it came meanwhile.
pub fn error_again(what: &str, error: &(dyn Error + 'static)) {
    static SAID: Mutex<Vec<Again>> = Mutex::new(Vec::new());
    let text = format!("error: {what}: {}", chain(error));
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let shown = again(&mut said, text, Instant::now());
    drop(said);
    if let Some(shown) = shown {
        line(&shown);
    }
}

/// Something that was said, and how often it was kept back since.
struct Again {
    text: String,
    at: Instant,
    kept_back: u64,
}

/// What is to be said of `text` at `now`, if anything.
fn again(said: &mut Vec<Again>, text: String, now: Instant) -> Option<String> {
    if let Some(known) = said.iter_mut().find(|known| known.text == text) {
        if now.duration_since(known.at) < AGAIN_AFTER {
            known.kept_back += 1;
            return None;
        }
        known.at = now;
        return Some(match std::mem::take(&mut known.kept_back) {
            0 => text,
            times => format!("{text} (and {times} times since it was said last)"),
        });
    }
    if said.len() >= KEPT_MAX {
        said.remove(0);
    }
    said.push(Again { text: text.clone(), at: now, kept_back: 0 });
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_and_what_is_new_at_once() {
        let (mut said, begun) = (Vec::new(), Instant::now());
        let mut says =
            |text: &str, secs| again(&mut said, text.to_owned(), begun + Duration::from_secs(secs));
        assert_eq!(says("full", 0).as_deref(), Some("full"));
        for secs in 1..60 {
            assert_eq!(says("full", secs), None);
        }
        assert_eq!(says("away", 30).as_deref(), Some("away"));
        assert_eq!(says("full", 60).as_deref(), Some("full (and 59 times since it was said last)"));
        assert_eq!(says("full", 61), None);
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let mut said = Vec::new();
        for number in 0..1_000 {
            assert!(again(&mut said, number.to_string(), Instant::now()).is_some());
        }
        assert!(said.len() <= KEPT_MAX, "{}", said.len());
    }
}
