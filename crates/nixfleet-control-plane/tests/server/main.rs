//! The control plane as its clients see it: the real server, real TLS, a real database.

mod acting;
mod agents;
mod channels;
mod cluster;
mod described;
mod doors;
mod fleet;
mod hostile;
mod intake;
mod living;
mod odd;
mod patience;
mod people;
mod plans;
mod program;
mod renewed;
mod replicas;
mod restarts;
mod running;
mod schema;
mod shortages;
mod stalls;
mod stores;
mod storms;
mod wire;
