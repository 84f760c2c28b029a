//! Trust from outside: documents made by hand, and what becomes of them.
//!
//! Everything is built by [`support`], which shares no code with the crate: its own envelopes, its own pre-authentication
//! encoding, its own Merkle tree, and signatures straight from the library.

mod accept;
mod attacks;
mod authors;
#[cfg(feature = "sign")]
mod corpus;
mod floors;
mod golden;
mod growth;
#[cfg(feature = "sign")]
mod inputs;
mod order;
mod replays;
#[cfg(feature = "sign")]
mod signers;
mod state;
mod support;
