//! The probes of a host: as in `nixfleet_core::model::probe`, with times in words, and a run's rhythm with defaults.

use nixfleet_core::model::names::Sha256;
use nixfleet_core::model::probe::{
    ExecProbe, Finite, HttpProbe, MetricLimit, MetricProbe, ProbeKind, ProbeMode, ProbeSpec, Redirects,
    StatusRange, TcpProbe, TlsTrust, UnitProbe,
};
use nixfleet_core::model::time::Secs;

use super::decode::{self, Fields, one_of, parsed, secs, whole, whole32};
use super::faults::Faults;
use super::policy::argv;
use super::suggest::did_you_mean;
use crate::spanned::{Field, Node, Value};

/// From one run to the next, unless the probe says otherwise.
const INTERVAL: Secs = Secs(10);
/// When a run counts as failed, unless the probe says otherwise.
const TIMEOUT: Secs = Secs(5);
/// So many failures in a row, unless the probe says otherwise: one blip is none.
const FAILURES: u32 = 3;

const MODE: [(&str, ProbeMode); 3] =
    [("enforce", ProbeMode::Enforce), ("observe", ProbeMode::Observe), ("disabled", ProbeMode::Disabled)];
const REDIRECTS: [(&str, Redirects); 2] = [("refuse", Redirects::Refuse), ("follow", Redirects::Follow)];
const KINDS: [&str; 5] = ["http", "tcp", "exec", "unit", "http-metric"];

/// Reads a probe, and checks that it can be run.
pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<ProbeSpec> {
    let mut fields = Fields::of(node, "a probe", faults)?;
    let name = fields.required("name", faults).and_then(|node| parsed(node, "`name`", faults));
    let kind = fields.required("kind", faults).and_then(|node| kind(node, faults));
    let mode = fields
        .optional("mode")
        .map_or(Some(ProbeMode::Enforce), |node| one_of(node, "`mode`", &MODE, faults));
    let interval = fields.optional("interval").map_or(Some(INTERVAL), |n| secs(n, "`interval`", faults));
    let timeout = fields.optional("timeout").map_or(Some(TIMEOUT), |n| secs(n, "`timeout`", faults));
    let after = fields.optional("after").map_or(Some(Secs(0)), |n| secs(n, "`after`", faults));
    let failures = fields.optional("failures").map_or(Some(FAILURES), |n| whole32(n, "`failures`", faults));
    let opening = fields.opening();
    fields.end(faults);
    let probe = ProbeSpec {
        name: name?,
        kind: kind?,
        mode: mode?,
        interval_secs: interval?,
        timeout_secs: timeout?,
        after_secs: after?,
        failures: failures?,
    };
    for fault in probe.faults() {
        faults.add(opening, format!("probe {} {fault}", probe.name));
    }
    Some(probe)
}

/// An object with one field, which names the kind.
fn kind(node: &Node, faults: &mut Faults) -> Option<ProbeKind> {
    let Value::Object(fields) = &node.value else {
        let hint = format!(
            "write {{\"tcp\": {{\"address\": \"localhost:443\"}}}}; known are `{}`",
            KINDS.join("`, `")
        );
        faults.add_with_hint(node.span, "`kind` must be an object", Some(hint));
        return None;
    };
    let [Field { at, name, node: inner }] = fields.as_slice() else {
        faults.add(node.span, format!("`kind` has one field, and this has {}", fields.len()));
        return None;
    };
    match name.as_str() {
        "http" => http(inner, faults).map(ProbeKind::Http),
        "tcp" => one_text(inner, "a tcp probe", "address", faults)
            .map(|address| ProbeKind::Tcp(TcpProbe { address })),
        "exec" => exec(inner, faults).map(ProbeKind::Exec),
        "unit" => {
            one_text(inner, "a unit probe", "unit", faults).map(|unit| ProbeKind::Unit(UnitProbe { unit }))
        }
        "http-metric" => metric(inner, faults).map(ProbeKind::HttpMetric),
        other => {
            let hint =
                did_you_mean(other, KINDS).unwrap_or_else(|| format!("known are `{}`", KINDS.join("`, `")));
            faults.add_with_hint(*at, format!("there is no probe `{}`", decode::shown(other)), Some(hint));
            None
        }
    }
}

/// An object with one text.
fn one_text(node: &Node, what: &'static str, name: &'static str, faults: &mut Faults) -> Option<String> {
    let mut fields = Fields::of(node, what, faults)?;
    let found = fields.required(name, faults).and_then(|node| decode::text(node, name, faults));
    fields.end(faults);
    found.map(str::to_owned)
}

fn exec(node: &Node, faults: &mut Faults) -> Option<ExecProbe> {
    let mut fields = Fields::of(node, "an exec probe", faults)?;
    let found = fields.required("argv", faults).and_then(|node| argv(node, faults));
    fields.end(faults);
    Some(ExecProbe { argv: found? })
}

fn http(node: &Node, faults: &mut Faults) -> Option<HttpProbe> {
    let mut fields = Fields::of(node, "an http probe", faults)?;
    let url = fields.required("url", faults).and_then(|node| decode::text(node, "`url`", faults));
    let status = fields.optional("status").map_or(Some(StatusRange::default()), |node| status(node, faults));
    let body_contains = match fields.optional("body_contains") {
        Some(node) => decode::text(node, "`body_contains`", faults).map(|text| Some(text.to_owned())),
        None => Some(None),
    };
    let tls = fields.optional("tls").map_or(Some(TlsTrust::SystemRoots), |node| tls(node, faults));
    let redirects = redirects(&mut fields, faults);
    fields.end(faults);
    Some(HttpProbe {
        url: url?.to_owned(),
        status: status?,
        body_contains: body_contains?,
        tls: tls?,
        redirects: redirects?,
    })
}

fn redirects(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Redirects> {
    let node = fields.optional("redirects");
    node.map_or(Some(Redirects::Refuse), |node| one_of(node, "`redirects`", &REDIRECTS, faults))
}

fn status(node: &Node, faults: &mut Faults) -> Option<StatusRange> {
    let mut fields = Fields::of(node, "`status`", faults)?;
    let mut side = |name, faults: &mut Faults| {
        let number = fields.required(name, faults).and_then(|node| whole(node, name, 599, faults));
        number.and_then(|number| u16::try_from(number).ok())
    };
    let (min, max) = (side("min", faults), side("max", faults));
    fields.end(faults);
    Some(StatusRange { min: min?, max: max? })
}

/// `"system-roots"`, `{"pinned-key": "sha256:…"}` or `{"ca-file": "/PATH"}`.
fn tls(node: &Node, faults: &mut Faults) -> Option<TlsTrust> {
    if let Value::Text(_) = &node.value {
        return one_of(node, "`tls`", &[("system-roots", ())], faults).map(|()| TlsTrust::SystemRoots);
    }
    let mut fields = Fields::of(node, "`tls`", faults)?;
    let (pin, file) = (fields.optional("pinned-key"), fields.optional("ca-file"));
    let span = fields.span();
    fields.end(faults);
    match (pin, file) {
        (Some(node), None) => parsed::<Sha256>(node, "`pinned-key`", faults).map(TlsTrust::PinnedKey),
        (None, Some(node)) => {
            decode::text(node, "`ca-file`", faults).map(|path| TlsTrust::CaFile(path.to_owned()))
        }
        (Some(_), Some(_)) | (None, None) => {
            let hint =
                "a server has one key (`pinned-key`), or somebody vouches for it (`ca-file`)".to_owned();
            faults.add_with_hint(span, "`tls` has either `pinned-key` or `ca-file`", Some(hint));
            None
        }
    }
}

fn metric(node: &Node, faults: &mut Faults) -> Option<MetricProbe> {
    let mut fields = Fields::of(node, "an http-metric probe", faults)?;
    let url = fields.required("url", faults).and_then(|node| decode::text(node, "`url`", faults));
    let tls = fields.optional("tls").map_or(Some(TlsTrust::SystemRoots), |node| tls(node, faults));
    let redirects = redirects(&mut fields, faults);
    let metric = fields.required("metric", faults).and_then(|node| decode::text(node, "`metric`", faults));
    let good = fields.required("good", faults).and_then(|node| limit(node, faults));
    fields.end(faults);
    Some(MetricProbe {
        url: url?.to_owned(),
        tls: tls?,
        redirects: redirects?,
        metric: metric?.to_owned(),
        good: good?,
    })
}

/// `{"at-most": 5}`, or `{"at-least": 0.9}`.
fn limit(node: &Node, faults: &mut Faults) -> Option<MetricLimit> {
    let mut fields = Fields::of(node, "`good`", faults)?;
    let (most, least) = (fields.optional("at-most"), fields.optional("at-least"));
    let span = fields.span();
    fields.end(faults);
    match (most, least) {
        (Some(node), None) => finite(node, faults).map(MetricLimit::AtMost),
        (None, Some(node)) => finite(node, faults).map(MetricLimit::AtLeast),
        (Some(_), Some(_)) | (None, None) => {
            faults.add(span, "`good` has either `at-most` or `at-least`");
            None
        }
    }
}

fn finite(node: &Node, faults: &mut Faults) -> Option<Finite> {
    let read = match &node.value {
        Value::Number(text) => text.parse::<f64>().ok().and_then(|number| Finite::try_from(number).ok()),
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => None,
    };
    if read.is_none() {
        faults.add(node.span, "a limit must be a finite number");
    }
    read
}
