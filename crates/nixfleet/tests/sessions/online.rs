//! The verbs that ask a control plane, against the real one: its own program, real TLS with an authority of the test, a
//! real database; and against stand-ins for what a real one never does. Agents are played: their events are folded as an
//! agent folds them, and sent with the host's own key.

mod acting;
mod agents;
mod control_plane;
mod looking;
mod pushing;
mod refusals;
mod rollouts;
mod stand_in;
mod steering;
mod watching;
