//! Which hosts can never be done, whatever succeeds from now on.

use super::View;
use super::seen::Seen;
use crate::model::circles::{Thought, Waiting};

/// By place, whether the host can never be done.
pub(super) fn stuck(view: &View<'_>) -> Vec<bool> {
    let (waves, opened) = (view.channel.current.policy.waves.len(), view.rollout.waves_opened.len());
    let waiting = |seen: &Seen<'_>| Waiting {
        is_open: !seen.is_done() && !seen.is_excused(),
        needs: (seen.wave >= opened).then_some(if seen.wave < waves { seen.wave } else { usize::MAX }),
        holds: Some(seen.wave).filter(|wave| *wave < waves && seen.is_waited_for()),
    };
    let groups = &view.groups;
    let group = |edge: usize| groups.edges.get(edge);
    let waits = |edge, place| group(edge).is_some_and(|(waiting, _)| groups.means(*waiting, place));
    let first = |edge, place| group(edge).is_some_and(|(_, after)| groups.means(*after, place));
    Thought::new(view.seen.iter().map(waiting).collect(), groups.edges.len(), waits, first).who_is_left()
}
