//! A control plane's log as it grows: server-sent events, read as they come, and taken up again where they broke off.

use std::time::Duration;

use nixfleet_sys::random;
use reqwest::header::ACCEPT;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{NotAnswered, Remote};

/// A control plane says something at least every 20 seconds; silence for three times as long is a dead line.
const SILENT_MAX: Duration = Duration::from_mins(1);
/// The largest event, in bytes: a host's whole state has some KB, and a long outcome some 60 KB.
const EVENT_BYTES_MAX: usize = 4 << 20;
/// The first pause before it is tried again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// A log that is followed.
#[derive(Debug)]
pub struct Live {
    remote: Remote,
    /// The newest event that was seen.
    after: u64,
    stream: Option<Stream>,
    pause: Duration,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// An event, as JSON; of a kind that may not be known here.
    Event(Value),
    /// The line broke, or cannot be had. It is tried again at the next call.
    Broke(NotAnswered),
    /// It is there again.
    Back,
}

impl Live {
    /// The log of `remote` above `after`.
    pub fn after(remote: Remote, after: u64) -> Self {
        Self { remote, after, stream: None, pause: PAUSES.0 }
    }

    /// The next event, or that the line broke. An error is one that another try does not mend.
    ///
    /// Not to be cancelled while it waits for a connection; what came is kept, and a lost call loses nothing.
    pub async fn next(&mut self) -> Result<Next, NotAnswered> {
        let Some(stream) = &mut self.stream else { return self.begin().await };
        match timeout(SILENT_MAX, stream.event(&self.remote)).await {
            Ok(Ok(Some((id, event)))) => {
                self.after = id.unwrap_or(self.after);
                Ok(Next::Event(event))
            }
            // The server ended, and says nothing of why.
            Ok(Ok(None)) => {
                self.broke(self.remote.foreign(StatusCode::OK, "the end of the stream".to_owned()))
            }
            Ok(Err(error)) => self.broke(error),
            Err(_) => self.broke(NotAnswered::TooSlow { at: self.remote.base.clone(), within: SILENT_MAX }),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is an answer of `next`")]
    fn broke(&mut self, error: NotAnswered) -> Result<Next, NotAnswered> {
        self.stream = None;
        Ok(Next::Broke(error))
    }

    async fn begin(&mut self) -> Result<Next, NotAnswered> {
        let path = format!("/v1/events/live?after={}", self.after);
        let request = self.remote.request(Method::GET, &path)?.header(ACCEPT, "text/event-stream");
        let begun = match timeout(self.remote.within, request.send()).await {
            Err(_) => Err(NotAnswered::TooSlow { at: self.remote.base.clone(), within: self.remote.within }),
            Ok(Err(error)) => Err(self.remote.failed(error)),
            Ok(Ok(response)) if response.status() == StatusCode::OK => Ok(response),
            Ok(Ok(response)) => match self.remote.read::<Value>(response).await {
                Ok(_) => Err(self.remote.foreign(StatusCode::OK, "no stream of events".to_owned())),
                Err(error) => Err(error),
            },
        };
        match begun {
            Ok(response) => {
                self.stream = Some(Stream { response, parser: Parser::default() });
                self.pause = PAUSES.0;
                Ok(Next::Back)
            }
            Err(error) if error.is_passing() => {
                // Spread, so that all who watch do not come back at the same moment.
                sleep(self.pause.mul_f64(0.5 + f64::from(random_part()) / 65_536.0)).await;
                self.pause = (self.pause * 2).min(PAUSES.1);
                self.broke(error)
            }
            Err(error) => Err(error),
        }
    }
}

fn random_part() -> u16 {
    u16::try_from(random::number() >> 48).unwrap_or(0)
}

#[derive(Debug)]
struct Stream {
    response: Response,
    parser: Parser,
}

impl Stream {
    /// The next event with its number; `None` at the end.
    async fn event(&mut self, remote: &Remote) -> Result<Option<(Option<u64>, Value)>, NotAnswered> {
        loop {
            match self.parser.event() {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(what) => return Err(remote.foreign(StatusCode::OK, what)),
            }
            match self.response.chunk().await.map_err(|error| remote.failed(error))? {
                Some(piece) => self.parser.feed(&piece),
                None => return Ok(None),
            }
        }
    }
}

/// Cuts a stream into events: lines of fields, and an empty line at the end of each.
#[derive(Debug, Default)]
struct Parser {
    pending: Vec<u8>,
    id: Option<u64>,
    data: String,
}

impl Parser {
    fn feed(&mut self, piece: &[u8]) {
        self.pending.extend_from_slice(piece);
    }

    /// The next whole event of what was fed.
    fn event(&mut self) -> Result<Option<(Option<u64>, Value)>, String> {
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if !line.is_empty() {
                self.field(line);
            } else if !self.data.is_empty() {
                let data = std::mem::take(&mut self.data);
                let event =
                    serde_json::from_str(&data).map_err(|error| format!("an event that is none: {error}"))?;
                return Ok(Some((self.id.take(), event)));
            }
            if self.data.len() > EVENT_BYTES_MAX {
                break;
            }
        }
        if self.pending.len() + self.data.len() > EVENT_BYTES_MAX {
            return Err(format!("an event of more than {EVENT_BYTES_MAX} bytes"));
        }
        Ok(None)
    }

    fn field(&mut self, line: &str) {
        // A line that begins with a colon is a comment, which says that the line is alive.
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.id = value.parse().ok(),
            "data" if self.data.is_empty() => value.clone_into(&mut self.data),
            "data" => {
                self.data.push('\n');
                self.data.push_str(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const STREAM: &str = ": still here\n\nid: 7\nevent: reported\ndata: {\"a\":1}\n\nevent: x\r\n\
                          data: {\"b\":\r\ndata: 2}\r\n\r\n";

    fn all(parser: &mut Parser) -> Vec<(Option<u64>, Value)> {
        std::iter::from_fn(|| parser.event().expect("events")).collect()
    }

    proptest! {
        #[test]
        fn events_are_the_same_however_the_stream_is_cut(cuts in prop::collection::vec(0..STREAM.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(STREAM.len());
            let (mut parser, mut from, mut got) = (Parser::default(), 0, Vec::new());
            for to in cuts {
                parser.feed(&STREAM.as_bytes()[from..to]);
                got.extend(all(&mut parser));
                from = to;
            }
            prop_assert_eq!(got, vec![(Some(7), json!({ "a": 1 })), (None, json!({ "b": 2 }))]);
        }

        #[test]
        fn any_bytes_are_events_or_an_error(bytes: Vec<u8>) {
            let mut parser = Parser::default();
            parser.feed(&bytes);
            let _ = parser.event();
        }
    }

    #[test]
    fn an_endless_event_is_given_up() {
        let mut parser = Parser::default();
        parser.feed(b"data: ");
        parser.feed(&vec![b'x'; EVENT_BYTES_MAX]);
        assert!(parser.event().is_err());
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "x".repeat(1 << 20)).repeat(5);
        parser.feed(line.as_bytes());
        assert!(parser.event().is_err());
    }
}
