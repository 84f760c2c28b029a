//! What is run.

use crate::mistakes::Mistake;

/// One run, but for its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many hosts the fleet has.
    pub hosts: u32,
    /// What goes wrong.
    pub faults: Faults,
    /// A mistake of others that is put back, to see that it is found.
    pub mistake: Option<Mistake>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    /// Nothing.
    None,
    /// Whatever the seed draws.
    All,
}

impl Default for Settings {
    fn default() -> Self {
        Self { hosts: 200, faults: Faults::All, mistake: None }
    }
}
