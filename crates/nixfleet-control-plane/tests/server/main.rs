//! The control plane as its clients see it: the real server, real TLS, a real database.

mod agents;
mod cluster;
mod doors;
mod fleet;
mod intake;
mod living;
mod people;
mod plans;
mod restarts;
mod running;
mod stores;
