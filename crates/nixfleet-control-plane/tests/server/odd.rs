//! Values that nobody could mean, and values by a schema, as text: what is no JSON has a place here too.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

/// How deep a schema is followed.
const DEPTH_MAX: u32 = 5;
/// Stands for what is put in the place of something.
const MARK: &str = "a place that is spoilt";

/// Texts that have broken programs before, beside some that stand for something.
fn text() -> impl Strategy<Value = String> {
    let known = ["web-1", "stable", "a test", "go", "sha256:00", "1", "/nix/store/x"];
    let odd = [
        "",
        " ",
        "\u{0}",
        "a\nb",
        "\u{202e}",
        "..",
        "../../etc/passwd",
        "%00",
        "' OR 1=1 --",
        "\"",
        "\\",
        "💥",
        "null",
        "NaN",
        "{}",
        "<script>",
        "${x}",
    ];
    prop_oneof![
        4 => select(known.to_vec()).prop_map(str::to_owned),
        3 => select(odd.to_vec()).prop_map(str::to_owned),
        2 => any::<String>(),
        1 => (1_usize..40_000).prop_map(|count| "x".repeat(count)),
    ]
}

fn number() -> impl Strategy<Value = String> {
    let odd = [
        "0",
        "1",
        "2",
        "-1",
        "-0",
        "1.5",
        "1e3",
        "1e400",
        "-1e400",
        "9007199254740991",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
    ];
    prop_oneof![
        6 => select(odd.to_vec()).prop_map(str::to_owned),
        2 => any::<u64>().prop_map(|number| number.to_string()),
        1 => (20_usize..2_000).prop_map(|digits| "9".repeat(digits)),
    ]
}

/// JSON, or nearly, of any kind.
pub(crate) fn anything() -> impl Strategy<Value = String> {
    prop_oneof![
        text().prop_map(|text| Value::String(text).to_string()),
        number(),
        select(
            &["null", "true", "[]", "{}", "[[],[]]", "{\"a\":{}}", "\"\\ud800\"", "{", "[1,", "\"", "nul"][..]
        )
        .prop_map(str::to_owned),
        (1_usize..20_000).prop_map(|depth| "[".repeat(depth)),
        (1_usize..2_000).prop_map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth))),
        (1_usize..2_000).prop_map(|depth| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth))),
    ]
}

/// JSON by a schema of `all`; here and there something that is not.
pub(crate) fn by_schema(schema: &Value, all: &Value, depth: u32) -> BoxedStrategy<String> {
    let sound = sound(schema, all, depth);
    prop_oneof![12 => sound, 1 => anything()].boxed()
}

fn sound(schema: &Value, all: &Value, depth: u32) -> BoxedStrategy<String> {
    if depth > DEPTH_MAX {
        return anything().boxed();
    }
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default();
        return by_schema(&all["components"]["schemas"][name], all, depth + 1);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        return one_of(any.iter().map(|one| by_schema(one, all, depth + 1)).collect());
    }
    if let Some(allowed) = schema["enum"].as_array() {
        return select(allowed.iter().map(Value::to_string).collect::<Vec<_>>()).boxed();
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    one_of(types.iter().map(|kind| of_type(kind.as_str().unwrap_or_default(), schema, all, depth)).collect())
}

fn one_of(strategies: Vec<BoxedStrategy<String>>) -> BoxedStrategy<String> {
    proptest::strategy::Union::new(strategies).boxed()
}

fn of_type(kind: &str, schema: &Value, all: &Value, depth: u32) -> BoxedStrategy<String> {
    match kind {
        "null" => Just("null".to_owned()).boxed(),
        "boolean" => any::<bool>().prop_map(|bool| bool.to_string()).boxed(),
        "integer" => number().boxed(),
        "string" => text().prop_map(|text| Value::String(text).to_string()).boxed(),
        "array" => {
            let item = by_schema(&schema["items"], all, depth + 1);
            proptest::collection::vec(item, 0..4).prop_map(|items| format!("[{}]", items.join(","))).boxed()
        }
        "object" => object(schema, all, depth),
        other => panic!("a schema says `{other}`"),
    }
}

/// An object: what is required mostly, what is not sometimes, a field twice or one that is not known here and there.
fn object(schema: &Value, all: &Value, depth: u32) -> BoxedStrategy<String> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let mut fields: Vec<BoxedStrategy<Option<String>>> = Vec::new();
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let often = if required.iter().any(|one| one == name.as_str()) { 0.95 } else { 0.4 };
        let name = Value::String(name.clone()).to_string();
        let field = by_schema(schema, all, depth + 1).prop_map(move |value| format!("{name}:{value}"));
        fields.push(proptest::option::weighted(often, field).boxed());
    }
    let unknown = (text(), anything()).prop_map(|(name, value)| format!("{}:{value}", Value::String(name)));
    fields.push(proptest::option::weighted(0.08, unknown).boxed());
    (fields, proptest::bool::weighted(0.05))
        .prop_map(|(fields, twice)| {
            let mut fields: Vec<String> = fields.into_iter().flatten().collect();
            if twice {
                fields.extend(fields.first().cloned());
            }
            format!("{{{}}}", fields.join(","))
        })
        .boxed()
}

/// Something that would be taken, with one place of it replaced.
pub(crate) fn spoilt(sample: Value) -> impl Strategy<Value = String> {
    (any::<Index>(), prop_oneof![9 => anything(), 1 => Just(String::new())]).prop_map(move |(at, odd)| {
        let places = places(&sample, "");
        let mut spoilt = sample.clone();
        if odd.is_empty() {
            return spoilt.to_string();
        }
        let at = at.get(&places);
        // Odd text may be no JSON, so it takes the place of a mark in the text.
        *spoilt.pointer_mut(at).expect("it is there") = Value::String(MARK.to_owned());
        spoilt.to_string().replace(&format!("\"{MARK}\""), &odd)
    })
}

/// Pointers to every place in a value.
fn places(value: &Value, at: &str) -> Vec<String> {
    let mut all = vec![at.to_owned()];
    match value {
        Value::Object(fields) => {
            let inner = |(name, value): (&String, &Value)| {
                places(value, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")))
            };
            all.extend(fields.iter().flat_map(inner));
        }
        Value::Array(items) => {
            all.extend(
                items.iter().enumerate().flat_map(|(index, value)| places(value, &format!("{at}/{index}"))),
            );
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    all
}

/// A part of a path, or a value of a query, as it is written there.
pub(crate) fn in_address(good: &[&'static str]) -> BoxedStrategy<String> {
    let odd = [
        "",
        ".",
        "..",
        "%2e%2e%2f",
        "%00",
        "%ff",
        "%",
        "%zz",
        "0",
        "-1",
        "1.json",
        "18446744073709551616",
        "*",
        "+",
        "a%20b",
        "%E2%80%AE",
        "web-1%0d%0aX-Y:%20z",
        "é",
        "&",
        "=",
    ];
    let encoded = proptest::collection::vec(any::<u8>().prop_map(|byte| format!("%{byte:02x}")), 0..40)
        .prop_map(|bytes| bytes.concat());
    prop_oneof![
        6 => select(good.to_vec()).prop_map(str::to_owned),
        3 => select(odd.to_vec()).prop_map(str::to_owned),
        1 => encoded,
        1 => (1_usize..9_000).prop_map(|count| "a".repeat(count)),
    ]
    .boxed()
}
