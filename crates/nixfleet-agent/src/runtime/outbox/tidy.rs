//! What goes when an outbox is full. Pure.

use nixfleet_core::host::event::Weight;

use super::line::{Kept, Log};
use super::{Limits, Receiver};

/// How much a record is needed, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// The receiver has it, or there is no receiver.
    Told,
    /// Nobody has it, and a later one says more.
    UntoldProgress,
    /// Nobody has it, and it never goes: a verdict, or the newest word of where the host stands.
    Untold,
}

/// A log of which as much went as had to, the least needed first and of these the oldest; and how many of them nobody
/// had.
pub(super) fn tidied(log: &Log, limits: Limits) -> (Log, usize) {
    // Whoever lacks reports goes on from there. Dropped, it would be owed again at once, and dropped again.
    let newest_state = log.records.iter().rfind(|record| record.tells_state).map(|record| record.seq);
    let need = |record: &Kept| match (limits.receiver, record.weight) {
        (Receiver::Nobody, Weight::Progress | Weight::Verdict) => Need::Told,
        (Receiver::Acknowledges, _) if record.seq <= log.acknowledged => Need::Told,
        (Receiver::Acknowledges, Weight::Progress) if Some(record.seq) == newest_state => Need::Untold,
        (Receiver::Acknowledges, Weight::Progress) => Need::UntoldProgress,
        (Receiver::Acknowledges, Weight::Verdict) => Need::Untold,
    };
    let mut stays = vec![true; log.records.len()];
    let mut over_bytes = log.bytes().saturating_sub(limits.live_bytes_max());
    let mut untold = 0;
    for goes in [Need::Told, Need::UntoldProgress] {
        for (record, stays) in log.records.iter().zip(&mut stays) {
            if over_bytes > 0 && *stays && need(record) == goes {
                *stays = false;
                over_bytes = over_bytes.saturating_sub(record.line.len() as u64);
                untold += usize::from(goes == Need::UntoldProgress);
            }
        }
    }
    let records = log.records.iter().zip(stays).filter(|(_, stays)| *stays);
    let records = records.map(|(record, _)| record.clone()).collect();
    (Log { records, acknowledged: log.acknowledged }, untold)
}
