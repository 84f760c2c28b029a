//! A push: the documents of a release one after the other, each in one line, as `nixfleet release push` sends them.
//!
//! Roots, then the release, then its entries. A line is an envelope, whose own `payloadType` says what it is. Lines come
//! in pieces of any size, and none is longer than an envelope may be.

use nixfleet_trust::envelope::ENVELOPE_SIZE_MAX;
use serde::Deserialize;

use super::{Draft, IntakeRefused, Needs};

/// Why a push was given up.
#[derive(Debug, thiserror::Error)]
pub enum PushRefused {
    /// A line is longer than any envelope.
    #[error("line {0} is longer than {ENVELOPE_SIZE_MAX} bytes, which no document is")]
    LineTooLong(usize),
    /// A line is none of ours.
    #[error("line {0} is not a root, a release or an entry")]
    NotADocument(usize),
    /// A document.
    #[error("line {line} is refused")]
    Document {
        /// Which one, from 1.
        line: usize,
        /// Why.
        #[source]
        refused: IntakeRefused,
    },
}

/// Cuts pieces into lines and hands them to a draft.
#[derive(Debug)]
pub struct Push {
    draft: Draft,
    pending: Vec<u8>,
    lines: usize,
    needs: Needs,
}

impl Push {
    /// A push into `draft`.
    pub fn new(draft: Draft) -> Self {
        Self { draft, pending: Vec::new(), lines: 0, needs: Needs::Entries }
    }

    /// The next piece.
    pub fn piece(&mut self, mut piece: &[u8]) -> Result<(), PushRefused> {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = piece.split_at(end + 1);
            self.grow(line)?;
            let line = std::mem::take(&mut self.pending);
            self.line(&line)?;
            piece = rest;
        }
        self.grow(piece)
    }

    /// The last piece has come: the draft, to be finished.
    pub fn end(mut self) -> Result<Draft, PushRefused> {
        let line = std::mem::take(&mut self.pending);
        self.line(&line)?;
        Ok(self.draft)
    }

    fn grow(&mut self, piece: &[u8]) -> Result<(), PushRefused> {
        // And its newline.
        if self.pending.len() + piece.len() > ENVELOPE_SIZE_MAX + 1 {
            return Err(PushRefused::LineTooLong(self.lines + 1));
        }
        self.pending.extend_from_slice(piece);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), PushRefused> {
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "payloadType")]
            kind: String,
        }
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        self.lines += 1;
        let number = self.lines;
        let typed: Typed = nixfleet_trust::json::read(line).map_err(|_| PushRefused::NotADocument(number))?;
        let done = match typed.kind.as_str() {
            ROOT => self.draft.root(line),
            RELEASE => self.draft.release(line).map(|needs| self.needs = needs),
            // It is here already, and so are its entries.
            ENTRY if self.needs == Needs::Nothing => Ok(()),
            ENTRY => self.draft.entry(line),
            _ => return Err(PushRefused::NotADocument(number)),
        };
        done.map_err(|refused| PushRefused::Document { line: number, refused })
    }
}

const ROOT: &str = "application/vnd.nixfleet.root.v1+json";
const RELEASE: &str = "application/vnd.nixfleet.release.v1+json";
const ENTRY: &str = "application/vnd.nixfleet.entry.v1+json";

#[cfg(test)]
mod tests {
    use nixfleet_trust::envelope::PayloadType;

    #[test]
    fn the_types_are_those_that_documents_have() {
        assert_eq!(super::ROOT, PayloadType::Root.as_str());
        assert_eq!(super::RELEASE, PayloadType::Release.as_str());
    }
}
