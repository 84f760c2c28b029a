//! The host as a pure machine.

pub mod effect;
pub mod event;
pub mod follow;
mod gate;
pub mod pause;
pub mod phase;
pub mod probing;
pub mod retry;
mod said;
pub mod saved;
pub mod state;
mod step;
pub mod terms;
pub mod time;
pub mod trusted;
pub mod waiting;
pub mod window;
pub mod world;

pub use effect::Effect;
pub use event::Event;
pub use follow::{Advance, Follower, Record, advance};
pub use phase::Phase;
pub use state::HostState;
pub use step::{Context, Refused, Step, step};
pub use terms::Terms;
pub use time::{Now, UpMs};
