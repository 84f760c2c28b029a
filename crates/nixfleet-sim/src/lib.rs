//! A whole fleet in one seeded queue of events: hosts, the network between, the control plane, and all that goes wrong.
//!
//! Real are the parts that decide: the host machine with its reducer's order of writes, the follower of reports, the fold of facts,
//! the planner and its second pair of eyes. Everything that acts is modelled here, from what the design says of it: downloads,
//! switches with every outcome, boots, probes, disks, clocks, the wire, the database, a thief who holds the control plane.
//! There is no runtime, no thread and no clock: a seed is a run, and the same seed is the same run.
//!
//! [`run()`] plays a storm, then a calm in which the fleet must come to rest, then a good release that must arrive everywhere. After
//! every event the promises of [`Promise`] are checked. `cargo xtask test` runs many seeds; tests run a few, and each [`Mistake`] with
//! a seed that finds it.
//!
//! | mistake | of | what it is | seed | broken promise |
//! |---|---|---|---|---|
//! | `ProbesFromBefore` | L9 | what probes found before the activation counts | 1 | `Proven` |
//! | `UnrunCountsAsPassed` | L9, I9 | a probe that could not be run has passed | 4 | `Proven` |
//! | `AcknowledgedFirst` | L24 | reports are acknowledged before they are kept | 2 | `AcknowledgedIsKept` |
//! | `RepeatsFolded` | L24 | a report that arrives twice is folded twice | 5 | `FollowedIsTrue` |
//! | `OrderForgotten` | L25 | an order is forgotten when it is sent | 4 | `ComesToRest` |
//! | `StateLost` | L8, L17 | a torn state file is a fresh host | 1 | `NumbersCount` |
//! | `GenerationBelow` | L3 | the way back is one generation down | 12 | `RevertedToRecorded` |
//! | `DeferredCountsAsDone` | L6 | waiting for a reboot counts as done | 4 | `WithinBudget` |
//! | `SilentNotCounted` | L27 | who was ordered and is silent counts in no budget | 1 | `NoObjection` |
//! | `HaltForgotten` | L26 | the planner does not see that a rollout halted | 26 | `NoObjection` |
//! | `NobodyCalledBack` | L26 | a halt does not call back who has the order and has not begun | 1 | `NoObjection` |
//! | `CallBackIgnored` | L26 | a host that is called back goes all the same | 40 | `NotBeforeItsTurn` |
//! | `EffectsBeforeSave` | I5, L8 | something is done before the state is saved | 5 | `OneSwitch` |
//! | `ClockRemembered` | L16 | a time that only a clock said is remembered | 1 | `GoodReleaseArrives` |
//! | `UnsignedTaken` | I1, I2 | the control plane's word is enough | 2 | `ComesToRest` |

mod activation;
mod agent;
mod dice;
mod faults;
mod host;
mod machine;
mod mistakes;
mod outbox;
mod plane;
mod promises;
mod queue;
mod run;
mod settings;
mod sim;
mod story;
mod thief;
mod trace;
mod truth;
mod wire;

pub use mistakes::Mistake;
pub use promises::{Broken, Promise};
pub use run::{Counts, Finding, Found, run};
pub use settings::{Faults, Settings};
