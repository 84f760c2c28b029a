//! The agent on real hosts: outcomes, trust, crashes and the deadman. One binary, so that it is built once.
//!
//! Every host is a real systemd with real Nix (see the crate). The agent under test is `NIXFLEET_AGENT_BIN`, which
//! `cargo xtask test` builds with its failpoints. Where hosts cannot run, the tests say so and pass, except in CI.

mod asking;
mod booting;
mod clock;
mod clock_followed;
mod clock_led;
mod common;
mod controlled;
mod crashes;
mod darwin;
mod deadman;
mod deaths;
mod documents;
mod fleet;
mod followed;
mod hardships;
mod identities;
mod input;
mod installed;
mod lacking;
mod mending;
mod observed;
mod outcomes;
mod overtaken;
mod owner;
mod power;
mod priorities;
mod probing;
mod relay;
mod releases;
mod secured;
mod serverless;
mod slow_caches;
mod soak;
mod steered;
mod stolen;
mod successors;
mod troubled;
mod trust;
mod unruly;
