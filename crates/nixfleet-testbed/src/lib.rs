//! Real hosts for tests: systemd as PID 1, real Nix, a signed binary cache, and systems to activate.
//!
//! A [`Host`] is a Debian root with a NixOS-shaped system on it, booted by systemd-nspawn in about a second. It is
//! owned by a keeper process that ends with the test process, however that ends, so nothing stays mounted or running.
//! The systems (one [`System`] per knob) are built by the host's own Nix and fetched from a binary cache with real
//! signatures. Everything made once is kept in [`cache_dir`].
//!
//! A [`Vm`] is the same on a kernel of its own, in software emulation and twenty times slower: its clock can be set,
//! and cutting its power loses what was not flushed. What both can do is [`Machine`].
//!
//! Limits: root is needed, the clock of a [`Host`] is the machine's (it cannot set it), and killing one keeps the page
//! cache: it finds errors of logic, not missing syncs.

pub use cache::{Cache, Damage};
pub use fault::{Fault, FaultServer};
pub use files::Entry;
pub use host::{Host, HostBuilder};
pub use image::{Flavour, Image, cache_dir, prepare};
pub use machine::Machine;
pub use net::Net;
pub use packages::{APT_PACKAGES, available, missing};
pub use small_disk::SmallDisk;
pub use spawn::{Output, Running};
pub use sweep::{Swept, sweep};
pub use systems::System;
pub use vm::{Clock, Cut, Unflushed, Vm, VmBuilder, prepare_vm};
pub use wait::wait_until;

mod cache;
pub mod control_plane;
mod fault;
mod files;
pub mod fleet;
mod host;
mod image;
mod keeper;
mod machine;
mod net;
mod packages;
pub mod postgres;
mod run_dir;
mod small_disk;
mod spawn;
mod sweep;
mod systems;
mod vm;
mod wait;
