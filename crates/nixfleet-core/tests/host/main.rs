//! The host machine from outside: stories, properties over any order of events, and formats.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod formats;
mod gates;
mod lost;
mod properties;
mod reboots;
mod restarts;
mod roots;
mod sim;
mod stories;
mod support;
