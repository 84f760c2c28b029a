//! The host's state as it is kept on disk, alone or as part of the agent's state file.
//!
//! Every format that was ever released stays readable, and is a fixture. A newer one is an error that stops activation,
//! and so is a file that is torn or empty: neither is ever "no state" (lesson 17).

use serde::{Deserialize, Serialize};

use super::state::HostState;

/// The format that this program writes; it reads this one and every older one.
pub const STATE_FORMAT: u32 = 1;

/// A [`HostState`] with its format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "Format1")]
pub struct SavedState(pub HostState);

/// Why a saved state cannot be read. Nothing new is started until a person has looked.
#[derive(Debug, thiserror::Error)]
pub enum StateUnreadable {
    /// A newer program wrote it.
    #[error(
        "it has format {0}, and {STATE_FORMAT} is the newest that this agent knows: the agent was rolled back"
    )]
    Newer(u32),
    /// It is torn, or something else.
    #[error("it is not the JSON of a host's state")]
    Json(#[source] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Format1 {
    format: u32,
    state: HostState,
}

impl TryFrom<serde_json::Value> for SavedState {
    type Error = StateUnreadable;
    fn try_from(json: serde_json::Value) -> Result<Self, StateUnreadable> {
        /// What every format will have, so that a newer one is told from a torn one.
        #[derive(Deserialize)]
        struct AnyFormat {
            format: u32,
        }
        let AnyFormat { format } = AnyFormat::deserialize(&json).map_err(StateUnreadable::Json)?;
        if format > STATE_FORMAT {
            return Err(StateUnreadable::Newer(format));
        }
        let Format1 { format: _, state } = serde_json::from_value(json).map_err(StateUnreadable::Json)?;
        Ok(Self(state))
    }
}

impl From<SavedState> for Format1 {
    fn from(SavedState(state): SavedState) -> Self {
        Self { format: STATE_FORMAT, state }
    }
}

impl SavedState {
    /// Reads what [`SavedState::to_bytes`] wrote. That there is no file is for the caller to know.
    pub fn from_bytes(bytes: &[u8]) -> Result<HostState, StateUnreadable> {
        let json: serde_json::Value = serde_json::from_slice(bytes).map_err(StateUnreadable::Json)?;
        Self::try_from(json).map(|SavedState(state)| state)
    }

    /// The bytes of a file, ending with a newline: indented, since it is for rescue shells too.
    pub fn to_bytes(state: &HostState) -> Vec<u8> {
        let saved = Format1 { format: STATE_FORMAT, state: state.clone() };
        let mut out = serde_json::to_vec_pretty(&saved).expect("texts and numbers are always JSON");
        out.push(b'\n');
        out
    }
}
