//! The control plane: serves releases that it verified, takes in what agents report, and decides who moves when.
//!
//! It holds no key that a host trusts for *what* to run. Stealing it is an outage, not a breach: it can delay, never
//! choose, and never go faster than the signed policy. And it can be rebuilt from nothing: releases and the agents'
//! reports give all of it back.
//!
//! [`server`] starts the tasks and ends them; [`serve`] and [`tls`] are the connections, [`api`] the answers, [`releases`]
//! the intake, [`store`] what is kept. [`planner`] follows the log and plans, with [`mirror`] as its memory and [`listening`] for
//! its patience; decisions are made in `nixfleet_core`.

pub mod api;
pub mod certificate;
pub mod config;
pub mod heard;
pub mod listening;
pub mod metrics;
pub mod mirror;
pub mod planner;
pub mod releases;
pub mod retaining;
pub mod room;
pub mod say;
pub mod serve;
pub mod server;
pub mod store;
pub mod tls;
pub mod trouble;
pub mod wakes;
