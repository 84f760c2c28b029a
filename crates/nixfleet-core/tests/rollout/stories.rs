//! Stories: a text goes in, the recorded answer stands beside it. `NIXFLEET_RECORD=1` records anew; read what changed.
//!
//! A story is `stories/NAME.txt`; its first line is a sentence, its answer `stories/NAME.out`. Lines:
//!
//! | line | means |
//! |---|---|
//! | `policy JSON` | what the next release has in place of the simplest policy's fields |
//! | `release CHANNEL SEQ [rev=R] HOST[:WAVE[:TAG,TAG[:SYSTEM]]]…` | a release is taken; waves count from 0 |
//! | `fresh HOST…` | the host reports that it has no release yet |
//! | `plan` | plans, prints the plan and every reason, carries it out |
//! | `obey [HOST…]` | these hosts, or all, do what they were ordered by the last plan |
//! | `settle` | plans and obeys until nothing is left, and prints the last plan's reasons |
//! | `HOST is STATE` | the host reports a state for its newest release |
//! | `HOST fails [again]` | it reports that it went back; or that it failed and tries again by itself |
//! | `HOST notes` | it reports that it has what it was told last, and does not begin yet; or that it forgets what was taken back |
//! | `HOST has-order` | it reports that it has the order to go, whatever it was told since |
//! | `HOST has-no-way-back` | it was told to go back, and stays: its system was there before the release |
//! | `HOST wants-reboot` | it has converged and should restart |
//! | `HOST awaits-restart BY` | it waits to be restarted, by `itself`, `a-window` or `a-person` |
//! | `HOST heard` | it is heard of |
//! | `wait SPAN` | time passes: `30s`, `5m`, `2h`, `3d` |
//! | `pause`, `resume`, `abort CHANNEL SEQ`; `approve CHANNEL SEQ WAVE` | verbs about a rollout |
//! | `retry`, `skip`, `hold`, `unhold HOST`; `hold HOST SPAN` | verbs about a host |
//! | `restart` | the control plane was away, and listens again from now on |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use nixfleet_core::host::waiting::StateName;
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::policy::{Policy, WaveIndex};
use nixfleet_core::model::time::Secs;
use nixfleet_core::rollout::fact::Placed;
use nixfleet_core::rollout::snapshot::{RebootWanted, Then};
use nixfleet_core::rollout::{Fact, Plan, PlanReport, RolloutId, Standing, Transition, Verb};

use crate::world::{World, policy, release, system};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rollout/stories")
}

#[test]
fn every_story_ends_as_it_is_recorded() {
    let mut stories: Vec<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    stories.retain(|path| path.extension().is_some_and(|ext| ext == "txt"));
    stories.sort();
    assert!(stories.len() >= 40, "{} stories", stories.len());
    for path in stories {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# ") && text.lines().next().unwrap().ends_with('.'),
            "{path:?}: a sentence"
        );
        let got = tell(&text, &path);
        let recorded = path.with_extension("out");
        if std::env::var_os("NIXFLEET_RECORD").is_some() {
            record(&recorded, &got);
        }
        let want = std::fs::read_to_string(&recorded).unwrap_or_default();
        assert_eq!(got, want, "{}", path.display());
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a recorded answer is written by a person's command, into the tree"
)]
fn record(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

struct Telling {
    world: World,
    policy: Policy,
    last: Option<Plan>,
    out: String,
}

fn tell(text: &str, path: &Path) -> String {
    let mut telling = Telling { world: World::new(), policy: policy("{}"), last: None, out: String::new() };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        writeln!(telling.out, "{line}").unwrap();
        if !line.starts_with('#') {
            let words: Vec<&str> = line.split_whitespace().collect();
            let known = telling.line(line, &words);
            assert!(known, "{}: `{line}` is not a line of a story", path.display());
        }
    }
    telling.out
}

impl Telling {
    fn line(&mut self, line: &str, words: &[&str]) -> bool {
        match words {
            ["policy", ..] => self.policy = policy(line.trim_start_matches("policy")),
            ["release", channel, seq, hosts @ ..] => self.release(channel, seq, hosts),
            ["fresh", hosts @ ..] => hosts.iter().for_each(|host| self.fresh(host)),
            ["plan"] => {
                let (made, report) = self.world.plan();
                self.print(&made, &report);
                self.last = Some(made);
            }
            ["obey", hosts @ ..] => self.obey(hosts),
            ["settle"] => {
                let rounds = self.world.settle();
                let (made, report) = self.world.plan();
                writeln!(self.out, "  after {rounds} plans").unwrap();
                self.print(&made, &report);
            }
            ["wait", span] => self.world.pass(secs(span)),
            ["restart"] => self.world.snapshot.listening_since_ms = self.world.now,
            [host, "is", state] => {
                let (host, state) = (name(host), serde_json::from_value((*state).into()).unwrap());
                let about = self.world.current(&host);
                self.world.stands(&host, state, about);
            }
            [host, "fails"] => self.world.fails(&name(host), StateName::Reverted, Then::Stays),
            [host, "fails", "again"] => self.world.fails(&name(host), StateName::Failed, Then::TriesAgain),
            [host, "has-order"] => {
                let about = self.world.current(&name(host));
                let (_, found) = self.world.snapshot.host(&name(host)).unwrap();
                let standing = Standing { go: Some(about), ..found.standing.clone().unwrap() };
                self.world.report(&name(host), standing);
            }
            [host, "has-no-way-back"] => {
                let found = self.world.snapshot.host(&name(host)).unwrap().1.standing.clone().unwrap();
                let standing = Standing { no_way_back: found.about.clone(), ..found };
                self.world.report(&name(host), standing);
            }
            [host, "awaits-restart", by] => {
                let (host, by) = (name(host), serde_json::from_value((*by).into()).unwrap());
                let about = self.world.current(&host);
                self.world.stands(&host, StateName::AwaitingReboot, about);
                let found = self.world.snapshot.host(&host).unwrap().1.standing.clone().unwrap();
                self.world.report(&host, Standing { restart_by: Some(by), ..found });
            }
            [host, "notes"] => self.world.notes(&name(host)),
            [host, "wants-reboot"] => self.wants_reboot(host),
            [host, "heard"] => self.world.fold(&Fact::HostHeard { host: name(host) }).unwrap(),
            words => match verb(words) {
                Some(verb) => {
                    let verb = match verb {
                        Verb::Hold { host, until_ms: Some(until) } => {
                            let until = Secs(u32::try_from(until.get() / 1_000).unwrap());
                            Verb::Hold { host, until_ms: Some(self.world.now.plus(until)) }
                        }
                        other => other,
                    };
                    if let Err(refused) = self.world.ask(verb) {
                        writeln!(self.out, "  refused: {refused}").unwrap();
                    }
                }
                None => return false,
            },
        }
        true
    }

    fn release(&mut self, channel: &str, seq: &str, hosts: &[&str]) {
        let mut current = release(channel, seq.parse().unwrap(), self.world.now, self.policy.clone());
        let mut placed = BTreeMap::new();
        for word in hosts {
            if let Some(revision) = word.strip_prefix("rev=") {
                current.revision = revision.parse().unwrap();
                continue;
            }
            let mut parts = word.split(':');
            let host = parts.next().unwrap();
            let wave = WaveIndex(parts.next().map_or(0, |wave| wave.parse().unwrap()));
            let tags: BTreeSet<_> = parts
                .next()
                .into_iter()
                .flat_map(|tags| tags.split(','))
                .filter(|tag| !tag.is_empty())
                .map(|tag| tag.parse().unwrap())
                .collect();
            let own = format!("{host}-{seq}");
            let system = system(parts.next().unwrap_or(&own));
            placed.insert(name(host), Placed { wave, tags, system });
        }
        self.world.release(current, placed);
    }

    fn fresh(&mut self, host: &str) {
        let standing = Standing {
            state: StateName::Converged,
            since_ms: self.world.now,
            about: None,
            go: None,
            reboot_go: None,
            reboot: RebootWanted::No,
            no_way_back: None,
            restart_by: None,
            failure: None,
            hold: None,
        };
        self.world.report(&name(host), standing);
    }

    fn wants_reboot(&mut self, host: &str) {
        let host = name(host);
        let about = self.world.current(&host);
        self.world.stands(&host, StateName::Converged, about);
        let mut standing = self.world.snapshot.host(&host).unwrap().1.standing.clone().unwrap();
        standing.reboot = RebootWanted::Yes;
        self.world.report(&host, standing);
    }

    fn obey(&mut self, hosts: &[&str]) {
        let plan = self.last.clone().expect("something was planned");
        let meant = |host: &HostName| hosts.is_empty() || hosts.contains(&host.as_str());
        plan.orders.iter().filter(|order| meant(&order.host)).for_each(|order| self.world.obey(order));
    }

    fn print(&mut self, plan: &Plan, report: &PlanReport) {
        let Plan { at_ms: _, decisions, orders } = plan;
        for decision in decisions {
            writeln!(self.out, "  {} {}", decision.rollout, said(&decision.becomes)).unwrap();
        }
        for order in orders {
            let what = serde_json::to_value(order.what).unwrap();
            writeln!(self.out, "  {}: {} {}", order.host, what.as_str().unwrap(), order.release).unwrap();
        }
        let by_name: BTreeMap<_, _> = report.held.iter().collect();
        for (host, reason) in by_name {
            writeln!(self.out, "  {host} stays: {reason}").unwrap();
        }
    }
}

fn said(becomes: &Transition) -> String {
    match becomes {
        Transition::Superseded { by } => format!("is superseded by {by}"),
        Transition::Opened { release: _ } => "opens".to_owned(),
        Transition::FailureCounted { host, failed } => {
            format!("counts the failure of {host}: {}", failed.how)
        }
        Transition::Halted { host, failure } => format!("halts, since {host} failed: {failure}"),
        Transition::Quarantined { system, host } => format!("quarantines {}, from {host}", system.name()),
        Transition::WaveOpened { wave } => format!("opens wave {wave}"),
        Transition::Converged => "has converged".to_owned(),
    }
}

fn verb(words: &[&str]) -> Option<Verb> {
    let rollout = |channel: &str, seq: &str| RolloutId {
        channel: channel.parse().unwrap(),
        seq: seq.parse::<u64>().unwrap().try_into().unwrap(),
    };
    Some(match words {
        ["pause", channel, seq] => Verb::Pause { rollout: rollout(channel, seq) },
        ["resume", channel, seq] => Verb::Resume { rollout: rollout(channel, seq) },
        ["abort", channel, seq] => Verb::Abort { rollout: rollout(channel, seq) },
        ["approve", channel, seq, wave] => {
            Verb::Approve { rollout: rollout(channel, seq), wave: WaveIndex(wave.parse().unwrap()) }
        }
        ["retry", host] => Verb::Retry { host: name(host) },
        ["skip", host] => Verb::Skip { host: name(host) },
        ["hold", host] => Verb::Hold { host: name(host), until_ms: None },
        // From now on; whoever tells the story adds the time.
        ["hold", host, span] => {
            let until = secs(span);
            Verb::Hold { host: name(host), until_ms: Some(until.ms().try_into().unwrap()) }
        }
        ["unhold", host] => Verb::Unhold { host: name(host) },
        _ => return None,
    })
}

fn name(host: &str) -> HostName {
    host.parse().unwrap()
}

fn secs(span: &str) -> Secs {
    let (number, unit) = span.split_at(span.len() - 1);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        other => panic!("{other} is no unit"),
    };
    Secs(number.parse::<u32>().unwrap() * unit)
}
