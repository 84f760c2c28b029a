//! A transient unit as properties on the bus: those that `systemd-run` sends for the same unit.

use std::time::Duration;

use zbus::Variant;

use super::Properties;
use crate::tools::systemd::{CommandLine, TransientUnit, WhenFailed, Word, at_least_a_ms};

/// How exactly a timer strikes.
const ACCURACY: Duration = Duration::from_millis(100);

/// The properties of a service.
pub(super) fn service(unit: &TransientUnit) -> Properties<'_> {
    let TransientUnit { name: _, run, on_end, env, run_at_most, stop_within, when_failed: _ } = unit;
    let mut all = common(unit);
    all.push(("Type", "exec".into()));
    all.extend(on_end.iter().map(|line| ("ExecStopPost", command(line))));
    all.extend(run_at_most.iter().map(|limit| ("RuntimeMaxUSec", micros(*limit).into())));
    all.extend(stop_within.iter().map(|limit| ("TimeoutStopUSec", micros(*limit).into())));
    if !env.is_empty() {
        let variables: Vec<String> = env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        all.push(("Environment", variables.into()));
    }
    all.push(("ExecStart", command(run)));
    all
}

/// The properties of a timer that starts the service so long after the start of the manager, and is gone after that.
pub(super) fn timer(unit: &TransientUnit, since_startup: Duration) -> Properties<'_> {
    let mut all = common(unit);
    all.push(("TimersMonotonic", vec![("OnStartupSec", micros(since_startup))].into()));
    all.push(("AccuracyUSec", micros(ACCURACY).into()));
    all.push(("RemainAfterElapse", false.into()));
    all
}

fn common(unit: &TransientUnit) -> Properties<'_> {
    let mut all = vec![("Description", unit.run.to_string().into())];
    match unit.when_failed {
        WhenFailed::Keep => {}
        WhenFailed::Forget => all.push(("CollectMode", "inactive-or-failed".into())),
    }
    all
}

/// One command: the program, its argument vector, and that its failure counts.
///
/// The manager still expands `$` in the arguments when it runs them; no [`Word`] has one.
fn command(line: &CommandLine) -> Variant<'_> {
    let program = line.program().as_str();
    let vector: Vec<&str> = std::iter::once(program).chain(line.args().iter().map(Word::as_str)).collect();
    vec![(program, vector, false)].into()
}

/// What the program is given for the same time: whole milliseconds, and never 0, which would mean "no limit".
fn micros(time: Duration) -> u64 {
    at_least_a_ms(time).saturating_mul(1000)
}
