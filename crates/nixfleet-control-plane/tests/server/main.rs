//! The control plane as its clients see it: the real server, real TLS, a real database.

mod acting;
mod agents;
mod cluster;
mod described;
mod doors;
mod fleet;
mod intake;
mod living;
mod people;
mod plans;
mod replicas;
mod restarts;
mod running;
mod stores;
