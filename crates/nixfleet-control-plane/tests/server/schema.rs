//! The description of the API, read: its operations, and whether a value has the shape that a schema says.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

const DESCRIPTION: &str = include_str!("../../openapi.json");
/// What a schema may say, as far as [`wrong`] and those who make values by it understand it.
const UNDERSTOOD: [&str; 15] = [
    "$ref",
    "additionalProperties",
    "anyOf",
    "description",
    "enum",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minLength",
    "minimum",
    "properties",
    "required",
    "type",
    "format",
];

pub(crate) fn description() -> Value {
    serde_json::from_str(DESCRIPTION).expect("JSON")
}

/// Each operation: its method, its path, and what is said of it.
pub(crate) fn operations(description: &Value) -> Vec<(Method, String, Value)> {
    let mut out = Vec::new();
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let method = method.to_uppercase().parse().expect("a method");
            out.push((method, path.clone(), operation.clone()));
        }
    }
    out
}

/// What is wrong with `value` as a `schema`; fields that are not described are wrong, too.
pub(crate) fn wrong(value: &Value, schema: &Value, all: &Value, at: &str) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default();
        return wrong(value, &all["components"]["schemas"][name], all, &format!("{at}:{name}"));
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let faults: Option<Vec<String>> = any.iter().map(|one| wrong(value, one, all, at)).collect();
        return faults.map(|faults| faults.join(" and "));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    if !types.contains(&json!(kind)) {
        return Some(format!("{at} is {kind} and not {types:?}"));
    }
    if let (Some(allowed), false) = (schema["enum"].as_array(), value.is_null())
        && !allowed.contains(value)
    {
        return Some(format!("{at} is {value}"));
    }
    match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| wrong(item, &schema["items"], all, &format!("{at}[{index}]"))),
        Value::Object(fields) => {
            let properties = schema["properties"].as_object()?;
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let missing =
                required.iter().find(|name| !fields.contains_key(name.as_str().unwrap_or_default()));
            let open = schema["additionalProperties"] == true;
            let unknown = fields.keys().find(|name| !open && !properties.contains_key(*name));
            let inner = fields
                .iter()
                .find_map(|(name, value)| wrong(value, properties.get(name)?, all, &format!("{at}.{name}")));
            let missing = missing.map(|name| format!("{at} lacks {name}"));
            missing.or(unknown.map(|name| format!("{at} has {name}, which is not described"))).or(inner)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Every keyword in a schema of the description.
fn keywords(schema: &Value, into: &mut BTreeSet<String>) {
    for (name, said) in schema.as_object().into_iter().flatten() {
        into.insert(name.clone());
        match name.as_str() {
            "properties" => said.as_object().into_iter().flatten().for_each(|(_, one)| keywords(one, into)),
            "anyOf" => said.as_array().into_iter().flatten().for_each(|one| keywords(one, into)),
            _ => keywords(said, into),
        }
    }
}

#[test]
fn the_description_says_nothing_that_these_tests_pass_over() {
    let mut said = BTreeSet::new();
    for schema in description()["components"]["schemas"].as_object().expect("schemas").values() {
        keywords(schema, &mut said);
    }
    let unknown: Vec<&String> = said.iter().filter(|word| !UNDERSTOOD.contains(&word.as_str())).collect();
    assert_eq!(unknown, Vec::<&String>::new());
    assert!(said.len() > 5, "{said:?}");
}
