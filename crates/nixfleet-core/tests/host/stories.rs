//! What happens to a host, told event by event.

use nixfleet_core::activation::outcome::Verdict;
use nixfleet_core::host::Effect;
use nixfleet_core::host::phase::StateName;
use nixfleet_core::host::probing::ProbeResult;
use nixfleet_core::host::waiting::WaitingOn;
use nixfleet_core::host::world::SourceKind;

use crate::support::{Host, release, system, terms};

#[test]
fn a_good_release_is_staged_tried_proven_committed_watched_and_done() {
    let mut host = Host::started(SourceKind::Static);
    assert_eq!((host.name(), host.waiting()), (StateName::Converged, WaitingOn::NewerRelease));

    host.offer(terms(1));
    assert_eq!(host.name(), StateName::Staging);
    let [Effect::Stage(order)] = host.asked.as_slice() else { panic!("{:?}", host.asked) };
    assert_eq!((&order.release, &order.system), (&release(1), &system("s1")));

    host.staged(1);
    assert_eq!(host.name(), StateName::Activating);
    let [Effect::Activate(intent)] = host.asked.as_slice() else { panic!("{:?}", host.asked) };
    assert_eq!(intent.target, system("s1"));
    assert_eq!(intent.digest.as_ref(), Some(&terms(1).closure.digest));

    host.ends("s1", "s0", Verdict::OnTrial { confirm_within_secs: 290 });
    assert_eq!(host.name(), StateName::Confirming);
    assert!(
        matches!(host.asked.as_slice(), [Effect::StartProbes(_), Effect::AskSource(_)]),
        "{:?}",
        host.asked
    );

    host.web(1, ProbeResult::Passed);
    assert_eq!(host.asked, [], "the source has not answered yet");
    host.source_proven();
    assert_eq!(host.asked, [Effect::Commit(host.id())]);
    assert_eq!(host.waiting(), WaitingOn::Commit);

    host.ends("s1", "s0", Verdict::Converged);
    assert_eq!(host.name(), StateName::Soaking);
    host.wait(599);
    assert_eq!(host.name(), StateName::Soaking);
    host.sleep();
    assert_eq!(host.name(), StateName::Converged);
    assert_eq!(host.asked, [Effect::StopProbes]);
    let done = host.state.settled.as_ref().unwrap();
    assert_eq!((&done.terms.release, done.previous.as_ref()), (&release(1), Some(&system("s0"))));
    assert_eq!(host.wake_at, None);
}
