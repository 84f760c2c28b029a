//! What this host shall run: fetched from a release source, verified here, and offered to whoever owns the state.
//!
//! A source is a folder with the layout of [`nixfleet_core::model::layout`], on a disk or behind a web server. It is not
//! trusted with anything: it can be late, silent or wrong, and what it serves counts only after every check of
//! `nixfleet-trust`. Whoever serves it can hide a release until it expires, and do nothing else.
//!
//! [`follow()`] is the worker. It looks, says what it saw, and sleeps; it keeps nothing on disk and decides nothing about
//! the host. The reducer sends [`Ask`]s and gets [`Said`]s; it saves the trust in them before it acts on them. One look
//! (`look`) asks for `latest`, then for newer roots, then for the release and this host's entry, and stops at the first
//! thing that is wrong. [`place`] names where, `folder` and `web` fetch, [`refused`] puts a refusal into words.

pub mod documents;
mod folder;
pub mod follow;
pub mod look;
pub mod place;
pub mod refused;
pub mod web;

pub use follow::{Ask, Following, Said, follow};
pub use look::Offer;
