//! Release sources from outside: what a host makes of what it is served, in memory, from folders and from web servers
//! that behave in every bad way.

mod attacks;
mod checked;
mod folder;
mod order;
mod server;
mod shelf;
mod tls;
mod web;
mod worker;

// The documents are made by hand there, without the code that reads them; one such maker is enough for two crates.
#[path = "../../../nixfleet-trust/tests/trust/support.rs"]
#[allow(dead_code, reason = "some of it is for the tests of the other crate")]
mod fleet;
