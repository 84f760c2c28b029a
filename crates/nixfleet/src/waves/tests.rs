use proptest::prelude::*;

use super::*;

fn name(number: usize) -> HostName {
    format!("host-{number}").parse().expect("a name")
}

fn tags(words: &[&str]) -> BTreeSet<Tag> {
    words.iter().map(|word| word.parse().expect("a tag")).collect()
}

fn choice(hosts: Selector, take: Option<Amount>) -> Choice {
    Choice { hosts, take }
}

/// Assigns hosts with the given tags for release `seq`.
fn assigned(choices: &[Choice], hosts: &[BTreeSet<Tag>], seq: u64) -> Result<Vec<u16>, LeftOver> {
    let names: Vec<HostName> = (0..hosts.len()).map(name).collect();
    let (fleet, channel) = ("f".parse().expect("a name"), "c".parse().expect("a name"));
    let draw = Draw { fleet: &fleet, channel: &channel, seq: Seq::new(seq).expect("in range") };
    let waves = assign(choices, &names.iter().zip(hosts).collect(), draw)?;
    Ok(names.iter().map(|name| waves[name].0).collect())
}

fn in_wave(waves: &[u16], wanted: u16) -> usize {
    waves.iter().filter(|wave| **wave == wanted).count()
}

#[test]
fn a_canary_goes_before_all_others_wherever_only_some_are_taken() {
    let mut hosts = vec![tags(&[]); 50];
    hosts[31] = tags(&["canary"]);
    let choices = [choice(Selector::All, Some(Amount::Count(1))), choice(Selector::All, None)];
    for seq in 1..20 {
        let waves = assigned(&choices, &hosts, seq).expect("all are taken");
        assert_eq!((waves[31], in_wave(&waves, 0)), (0, 1), "release {seq}");
    }
}

#[test]
fn other_hosts_go_first_in_another_release() {
    let choices = [choice(Selector::All, Some(Amount::Percent(10))), choice(Selector::All, None)];
    let hosts = vec![tags(&[]); 40];
    let first: BTreeSet<Vec<u16>> =
        (1..30).map(|seq| assigned(&choices, &hosts, seq).expect("all are taken")).collect();
    assert!(first.len() > 25, "{} of 29 draws differ", first.len());
}

#[test]
fn a_share_is_one_of_all_that_the_selector_means_and_a_count_of_those_that_are_left() {
    let choices = [
        choice(Selector::Tag("canary".parse().expect("a tag")), None),
        choice(Selector::All, Some(Amount::Percent(20))),
        choice(Selector::All, Some(Amount::Count(3))),
        choice(Selector::All, None),
    ];
    let mut hosts = vec![tags(&[]); 50];
    hosts[0] = tags(&["canary"]);
    hosts[1] = tags(&["canary"]);
    let waves = assigned(&choices, &hosts, 1).expect("all are taken");
    assert_eq!([0, 1, 2, 3].map(|wave| in_wave(&waves, wave)), [2, 10, 3, 35]);
}

#[test]
fn hosts_that_no_wave_takes_are_named() {
    let choices = [choice(Selector::Tag("web".parse().expect("a tag")), None)];
    let left = assigned(&choices, &[tags(&["web"]), tags(&["db"]), tags(&[])], 1).expect_err("two are left");
    assert_eq!(left, LeftOver(vec![name(1), name(2)]));
}

fn any_choice() -> impl Strategy<Value = Choice> {
    let selector = prop_oneof![
        Just(Selector::All),
        Just(Selector::Tag("web".parse().expect("a tag"))),
        Just(Selector::Not(Box::new(Selector::Tag("web".parse().expect("a tag"))))),
        (0usize..12).prop_map(|number| Selector::Host(name(number))),
    ];
    let take = prop_oneof![
        Just(None),
        (0u32..9).prop_map(|count| Some(Amount::Count(count))),
        (0u8..=100).prop_map(|percent| Some(Amount::Percent(percent))),
    ];
    (selector, take).prop_map(|(hosts, take)| Choice { hosts, take })
}

fn any_hosts() -> impl Strategy<Value = Vec<BTreeSet<Tag>>> {
    prop::collection::vec(
        prop::sample::subsequence(vec!["canary", "web"], 0..=2).prop_map(|words| tags(&words)),
        0..12,
    )
}

proptest! {
    /// The rules, one by one, and not the way in which the waves are made.
    #[test]
    fn every_host_is_in_one_wave_that_means_it_and_no_wave_takes_more_than_it_says(
        mut choices in prop::collection::vec(any_choice(), 0..5),
        hosts in any_hosts(),
        seq in 0u64..1000,
    ) {
        choices.push(choice(Selector::All, None));
        let waves = assigned(&choices, &hosts, seq).expect("the last wave takes all that are left");
        prop_assert_eq!(waves.len(), hosts.len());
        for (index, choice) in (0u16..).zip(&choices) {
            let means = |at: usize| choice.hosts.means(&name(at), &hosts[at]);
            let meant = (0..hosts.len()).filter(|at| means(*at)).count();
            let free = (0..hosts.len()).filter(|at| means(*at) && waves[*at] >= index).count();
            let got = in_wave(&waves, index);
            prop_assert!((0..hosts.len()).all(|at| waves[at] != index || means(at)));
            let most = choice.take.map_or(usize::MAX, |take| usize::try_from(take.of(u32::try_from(meant).unwrap())).unwrap());
            prop_assert_eq!(got, free.min(most));
            let late = (0..hosts.len()).any(|at| means(at) && waves[at] > index && hosts[at].contains(&"canary".parse().unwrap()));
            let ordinary = (0..hosts.len()).any(|at| waves[at] == index && !hosts[at].contains(&"canary".parse().unwrap()));
            prop_assert!(!(late && ordinary), "a canary waits while others go");
        }
    }

    /// Hosts are given in a map, whose order is that of the names: so the names are given out in another order.
    #[test]
    fn waves_do_not_depend_on_the_order_of_hosts(hosts in any_hosts(), seed: u64) {
        let choices = [choice(Selector::All, Some(Amount::Percent(30))), choice(Selector::All, None)];
        let (fleet, channel) = ("f".parse().unwrap(), "c".parse().unwrap());
        let draw = Draw { fleet: &fleet, channel: &channel, seq: Seq::ZERO };
        let names: Vec<HostName> = (0..hosts.len()).map(name).collect();
        let mut pairs: Vec<_> = names.iter().zip(&hosts).collect();
        let forward = assign(&choices, &pairs.iter().copied().collect(), draw).unwrap();
        pairs.sort_by_key(|(name, _)| Sha256::digest(format!("{seed}{name}")).to_vec());
        prop_assert_eq!(assign(&choices, &pairs.into_iter().collect(), draw).unwrap(), forward);
    }
}
