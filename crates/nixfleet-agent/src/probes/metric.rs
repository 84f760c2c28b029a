//! A number in a text of Prometheus metrics keeps to a limit.

use nixfleet_core::model::probe::{MetricLimit, MetricProbe};

use super::Answer;
use super::http::{self, End};

pub mod text;

/// A page of metrics; a busy one has some megabytes.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Whether every sample that the probe names is good, and there is one; the caller has the deadline.
pub(super) async fn ask(probe: &MetricProbe) -> Answer {
    let MetricProbe { url, tls, redirects, metric, good } = probe;
    let wanted: text::Selector = metric.parse().map_err(|error: text::NotASelector| error.to_string())?;
    let mut answer = http::get(url, tls, *redirects).await?;
    answer.stays_here()?;
    if !answer.status.is_success() {
        return Err(format!("status {}", answer.status));
    }
    let body = answer.body(PAGE_BYTES_MAX).await?;
    if body.end == End::NotReached {
        return Err(format!("the page has more than {PAGE_BYTES_MAX} bytes"));
    }
    let page = str::from_utf8(&body.bytes).map_err(|_| "the page is not UTF-8".to_owned())?;
    judge(page, &wanted, *good)
}

/// Every sample that is meant must be good: `up` without labels means all that are called so.
fn judge(page: &str, wanted: &text::Selector, good: MetricLimit) -> Answer {
    let mut found = 0_u32;
    for sample in text::samples(page) {
        let sample = sample.map_err(|error| error.to_string())?;
        if !wanted.matches(&sample) {
            continue;
        }
        found += 1;
        if !keeps(sample.value, good) {
            return Err(format!("{} is not {}", sample.value, limit(good)));
        }
    }
    match found {
        0 => Err("there is no such sample".to_owned()),
        1 => Ok(format!("1 sample is {}", limit(good))),
        more => Ok(format!("{more} samples are {}", limit(good))),
    }
}

/// No comparison holds of a value that is not a number, so such a value is never good.
fn keeps(value: f64, good: MetricLimit) -> bool {
    match good {
        MetricLimit::AtMost(most) => value <= most.get(),
        MetricLimit::AtLeast(least) => value >= least.get(),
    }
}

fn limit(good: MetricLimit) -> String {
    match good {
        MetricLimit::AtMost(most) => format!("at most {}", most.get()),
        MetricLimit::AtLeast(least) => format!("at least {}", least.get()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nixfleet_core::model::probe::Finite;

    fn judged(page: &str, wanted: &str, good: MetricLimit) -> Answer {
        judge(page, &wanted.parse().expect("a selector"), good)
    }

    fn finite(value: f64) -> Finite {
        value.try_into().expect("finite")
    }

    const PAGE: &str = "# HELP errors_total What went wrong.\n# TYPE errors_total counter\n\
        errors_total{job=\"web\",code=\"500\"} 3\nerrors_total{job=\"db\",code=\"500\"} 7\nup 1\nratio NaN\n";

    #[test]
    fn every_sample_that_is_meant_must_keep_to_the_limit() {
        let at_most = |value| MetricLimit::AtMost(finite(value));
        assert_eq!(
            judged(PAGE, "errors_total{job=\"web\"}", at_most(3.0)),
            Ok("1 sample is at most 3".into())
        );
        assert_eq!(judged(PAGE, "errors_total", at_most(7.0)), Ok("2 samples are at most 7".into()));
        assert_eq!(judged(PAGE, "errors_total", at_most(6.5)), Err("7 is not at most 6.5".into()));
        assert_eq!(
            judged(PAGE, "up", MetricLimit::AtLeast(finite(1.0))),
            Ok("1 sample is at least 1".into())
        );
        assert_eq!(
            judged(PAGE, "up", MetricLimit::AtLeast(finite(1.5))),
            Err("1 is not at least 1.5".into())
        );
    }

    #[test]
    fn a_sample_that_is_not_there_and_one_that_is_no_number_are_failures() {
        let absent = judged(PAGE, "errors_total{job=\"mail\"}", MetricLimit::AtMost(finite(9.0)));
        assert_eq!(absent, Err("there is no such sample".into()));
        for good in [MetricLimit::AtMost(finite(9.0)), MetricLimit::AtLeast(finite(0.0))] {
            assert!(judged(PAGE, "ratio", good).is_err_and(|said| said.starts_with("NaN")));
        }
    }

    #[test]
    fn a_page_that_is_no_page_of_metrics_is_a_failure_although_the_sample_is_in_it() {
        let torn = "up 1\n<html>log in first</html>\n";
        let said = judged(torn, "up", MetricLimit::AtLeast(finite(1.0))).expect_err("a login page");
        assert!(said.contains("line 2"), "{said}");
    }
}
