//! A whole fleet in one seeded queue of events: hosts, the network between, the control plane, and all that goes wrong.
//!
//! Real are the parts that decide: the host machine with its reducer's order of writes, the follower of reports, the fold of facts,
//! the planner and its second pair of eyes. Everything that acts is modelled here, from what the design says of it: downloads,
//! switches with every outcome, boots, probes, disks, clocks, the wire, the database with one to three replicas and their lease, a
//! web server that some hosts follow instead, a thief who holds the control plane.
//! There is no runtime, no thread and no clock: a seed is a run, and the same seed is the same run.
//!
//! [`run()`] plays a storm, then a calm in which the fleet must come to rest, then a good release that must arrive everywhere. After
//! every event the promises of [`Promise`] are checked. `cargo xtask test` runs many seeds; tests run a few, and each [`Mistake`] with
//! a seed that finds it.
//!
//! | mistake | of | what it is | seed | broken promise |
//! |---|---|---|---|---|
//! | `ProbesFromBefore` | L9 | 1 | `Proven` |
//! | `UnrunCountsAsPassed` | L9, I9 | 3 | `Proven` |
//! | `AcknowledgedFirst` | L24 | 2 | `AcknowledgedIsKept` |
//! | `RepeatsFolded` | L24 | 2 | `FollowedIsTrue` |
//! | `OrderForgotten` | L25 | 1 | `OrderStays` |
//! | `StateLost` | L8, L17 | 1 | `NumbersCount` |
//! | `GenerationBelow` | L3 | 2 | `RevertedToRecorded` |
//! | `DeferredCountsAsDone` | L6 | 2 | `WithinBudget` |
//! | `SilentNotCounted` | L27 | 1 | `NoObjection` |
//! | `HaltForgotten` | L26 | 28 | `NoObjection` |
//! | `NobodyCalledBack` | L26 | 2 | `NoObjection` |
//! | `CallBackIgnored` | L26 | 32 | `NotBeforeItsTurn` |
//! | `EffectsBeforeSave` | I5, L8 | 2 | `OneSwitch` |
//! | `ClockRemembered` | L16 | 3 | `GoodReleaseArrives` |
//! | `UnsignedTaken` | I1, I2 | 4 | `ComesToRest` |
//! | `WaveTimeIgnored` | I1 | without a control plane the signed time of a wave is not waited for | 7 | `NotBeforeItsTurn` |
//! | `ExpiredTaken` | L16, L34 | a release that has expired is begun | 122 | `NotBeforeItsTurn` |
//! | `BackByWordAlone` | I1 | the control plane's word is enough for going back | 4 | `BackOnlyIfSigned` |
//! | `NobodyGoesBack` | L26 | a halt under `revert-all` leaves those who are done where they are | 8 | `ComesToRest` |
//! | `LateLeaderWrites` | L38 | a leader that stood still writes what it had planned, whoever leads by now | 209 | `ConvergedIsTrue` |
//! | `NumbersOfEachReplica` | L25 | each replica numbers its orders by itself | 2 | `ComesToRest` |
//! | `FetchedStillCounts` | L27 | a host that has fetched still counts as one that fetches | 1 | `ComesToRest` |
//! | `SilenceExcusesTheWatched` | L27, I9 | whoever falls silent while it is watched is excused | 14 | `NoObjection` |

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
mod web;
mod wire;

pub use mistakes::Mistake;
pub use promises::{Broken, Promise};
pub use run::{Counts, Finding, Found, run};
pub use settings::{Faults, Settings};
