//! Every time in here was worked out by hand from the zone's published rules: Berlin changes on 29 March 2026 at
//! 01:00 UTC (02:00 becomes 03:00) and on 25 October 2026 at 01:00 UTC (03:00 becomes 02:00).

use proptest::prelude::*;

use super::*;

fn at(utc: &str) -> UnixMs {
    unix_ms(utc.parse().expect("a time"))
}

fn window(days: &[Weekday], from: &str, until: &str, zone: &str) -> Window {
    let time = |text: &str| text.parse::<TimeOfDay>().expect("a time of day");
    Window {
        days: days.to_vec(),
        from: time(from),
        until: time(until),
        zone: zone.parse().expect("a zone's name"),
    }
}

#[allow(clippy::unnecessary_wraps, reason = "it is compared with what `opening` returns")]
fn open(until: &str) -> Result<Opening, NeverOpens> {
    Ok(Opening::Open { until: Some(at(until)) })
}

#[allow(clippy::unnecessary_wraps, reason = "it is compared with what `opening` returns")]
fn opens(when: &str) -> Result<Opening, NeverOpens> {
    Ok(Opening::Opens { at: at(when) })
}

#[test]
fn no_windows_at_all_are_always_open() {
    assert_eq!(opening(&[], at("2026-03-02T12:00:00Z")), Ok(Opening::Open { until: None }));
}

#[test]
fn a_window_is_read_on_the_wall_clock_of_its_zone() {
    let nightly = [window(&[], "02:00", "04:00", "Europe/Berlin")];
    // Winter: 02:00 there is 01:00 UTC. Summer: 00:00 UTC.
    assert_eq!(opening(&nightly, at("2026-01-10T00:59:59Z")), opens("2026-01-10T01:00:00Z"));
    assert_eq!(opening(&nightly, at("2026-01-10T01:00:00Z")), open("2026-01-10T03:00:00Z"));
    assert_eq!(opening(&nightly, at("2026-01-10T03:00:00Z")), opens("2026-01-11T01:00:00Z"));
    assert_eq!(opening(&nightly, at("2026-07-10T00:00:00Z")), open("2026-07-10T02:00:00Z"));
}

#[test]
fn when_clocks_go_forward_what_is_skipped_does_not_open_and_the_rest_opens_at_the_jump() {
    let skipped = [window(&[], "02:00", "03:00", "Europe/Berlin")];
    assert_eq!(opening(&skipped, at("2026-03-29T00:30:00Z")), opens("2026-03-30T00:00:00Z"));
    let cut = [window(&[], "02:30", "04:00", "Europe/Berlin")];
    assert_eq!(opening(&cut, at("2026-03-29T00:30:00Z")), opens("2026-03-29T01:00:00Z"));
    assert_eq!(opening(&cut, at("2026-03-29T01:00:00Z")), open("2026-03-29T02:00:00Z"));
}

#[test]
fn when_clocks_go_back_a_window_is_open_for_both_of_its_hours() {
    let twice = [window(&[], "02:00", "03:00", "Europe/Berlin")];
    assert_eq!(opening(&twice, at("2026-10-24T23:59:00Z")), opens("2026-10-25T00:00:00Z"));
    assert_eq!(opening(&twice, at("2026-10-25T00:00:00Z")), open("2026-10-25T02:00:00Z"));
    assert_eq!(opening(&twice, at("2026-10-25T02:00:00Z")), opens("2026-10-26T01:00:00Z"));
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_opens() {
    // 2026-03-06 is a Friday.
    let weekend = [window(&[Weekday::Fri], "22:00", "02:00", "UTC")];
    assert_eq!(opening(&weekend, at("2026-03-06T21:00:00Z")), opens("2026-03-06T22:00:00Z"));
    assert_eq!(opening(&weekend, at("2026-03-07T01:59:00Z")), open("2026-03-07T02:00:00Z"));
    assert_eq!(opening(&weekend, at("2026-03-07T22:30:00Z")), opens("2026-03-13T22:00:00Z"));
}

#[test]
fn windows_that_touch_are_one() {
    let two = [window(&[], "01:00", "02:00", "UTC"), window(&[], "02:00", "03:00", "UTC")];
    assert_eq!(opening(&two, at("2026-03-06T01:30:00Z")), open("2026-03-06T03:00:00Z"));
}

#[test]
fn a_zone_that_nobody_knows_keeps_only_its_own_window_shut_and_is_named() {
    let unknown = window(&[], "01:00", "02:00", "Mars/Olympus");
    let alone = opening(std::slice::from_ref(&unknown), at("2026-03-06T01:30:00Z"));
    assert!(matches!(alone, Err(NeverOpens::UnknownZone { ref zone }) if zone.as_str() == "Mars/Olympus"));
    let beside = [unknown, window(&[], "05:00", "06:00", "UTC")];
    assert_eq!(opening(&beside, at("2026-03-06T01:30:00Z")), opens("2026-03-06T05:00:00Z"));
}

#[test]
fn a_clock_outside_of_the_calendar_is_no_date() {
    let nightly = [window(&[], "02:00", "04:00", "UTC")];
    let far = UnixMs::new(9_000_000_000_000_000).expect("a number of milliseconds");
    assert!(matches!(opening(&nightly, far), Err(NeverOpens::OutsideCalendar { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Minute by minute: what is said of the future comes true, and nothing opens or closes in between.
    #[test]
    fn what_is_said_of_the_future_comes_true(
        start in 1_770_000_000u64..1_800_000_000,
        from in 0u32..1_440,
        until in 0u32..1_440,
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    ) {
        let text = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let windows = [window(&[], &text(from), &text(until), zone)];
        let minute = |n: u64| UnixMs::new((start / 60 * 60 + n * 60) * 1_000).expect("a time");
        let (open_now, change) = match opening(&windows, minute(0)).expect("it opens on some day") {
            Opening::Open { until } => (true, until),
            Opening::Opens { at } => (false, Some(at)),
        };
        for n in 0..3 * 1_440 {
            let open = matches!(opening(&windows, minute(n)), Ok(Opening::Open { .. }));
            if change.is_some_and(|change| minute(n) >= change) {
                prop_assert_ne!(open, open_now, "it changed at {:?}", change);
                break;
            }
            prop_assert_eq!(open, open_now, "minute {}", n);
        }
    }
}
