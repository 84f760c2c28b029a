//! The shapes of `nix path-info --json` through the years.
//!
//! | since | shape |
//! |---|---|
//! | 2.0 | an array of objects, each with `path`; what is missing has `"valid": false` |
//! | 2.19 | an object by path; what is missing is `null`; absent values are `null` |
//! | 2.33 | `{"version": 2, "storeDir": …, "info": {…}}`, names without the folder, hashes and signatures as objects |
//!
//! Hashes are SRI or base32 in the first two. All shapes are read by one function, since later ones keep the names.

use std::collections::BTreeSet;

use crate::ids::{STORE_DIR, StorePath};
use serde_json::{Map, Value};

use super::NotUnderstood;
use super::closure::Contents;
use super::nar_hash::NarHash;

/// What a store says of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The path.
    pub path: StorePath,
    /// The SHA-256 of its contents.
    pub nar_hash: NarHash,
    /// Its unpacked size.
    pub nar_size: u64,
    /// What has to be downloaded for it; only a cache says so.
    pub download_size: Option<u64>,
    /// What it refers to, itself perhaps included.
    pub references: Vec<StorePath>,
    /// Who claims to have signed it. Nothing here is checked: a signature covers [`PathInfo::fingerprint`].
    pub signatures: Vec<PathSignature>,
    /// How its contents make its name, if they do; such a path needs no signature.
    pub content_address: Option<String>,
    /// Whether this very store built it.
    pub ultimate: bool,
}

/// A signature as a store keeps it beside a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSignature {
    /// The name of the key, which anybody may write there.
    pub key: String,
    /// The signature in base64; empty where a version of Nix writes it in a form that we do not know.
    pub base64: String,
}

impl PathInfo {
    /// What a release signs of it.
    pub fn contents(&self) -> Contents {
        Contents { path: self.path.clone(), nar_hash: self.nar_hash, nar_size: self.nar_size }
    }

    /// The bytes that signatures of this path are made over: Nix's `ValidPathInfo::fingerprint`, version 1.
    pub fn fingerprint(&self) -> String {
        // Nix keeps references as a set, so they are sorted and none stands twice.
        let references: BTreeSet<&str> = self.references.iter().map(StorePath::as_str).collect();
        let references: Vec<&str> = references.into_iter().collect();
        format!("1;{};{};{};{}", self.path, self.nar_hash, self.nar_size, references.join(","))
    }
}

/// What a store says of the paths that it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathInfos {
    /// What it has, by path.
    pub known: Vec<PathInfo>,
    /// What it does not have; Nix says so with exit 0.
    pub missing: Vec<StorePath>,
}

/// What the JSON says of each path, in its order.
pub fn parse_path_info(json: &[u8]) -> Result<PathInfos, NotUnderstood> {
    let value: Value = serde_json::from_slice(json).map_err(|_| {
        NotUnderstood::new("it is not JSON", &String::from_utf8_lossy(&json[..json.len().min(200)]))
    })?;
    let mut infos = PathInfos::default();
    match &value {
        Value::Array(rows) => {
            for row in rows {
                let fields = object(row, "a row is not an object")?;
                let path = text(fields, "path")?
                    .ok_or_else(|| NotUnderstood::new("a row has no path", &shown(row)))?;
                add(&mut infos, path, row)?;
            }
        }
        Value::Object(top) => {
            for (path, row) in by_path(top)? {
                add(&mut infos, path, row)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(NotUnderstood::new("it is neither an array nor an object", &shown(&value)));
        }
    }
    Ok(infos)
}

/// The rows of an object by path: the whole, or what is below `info` where there is a version.
fn by_path(top: &Map<String, Value>) -> Result<&Map<String, Value>, NotUnderstood> {
    let Some(version) = top.get("version") else { return Ok(top) };
    if !matches!(version.as_u64(), Some(1..=3)) {
        return Err(NotUnderstood::new("this version of path-info is not known", &shown(version)));
    }
    let store = text(top, "storeDir")?;
    if store.is_some_and(|dir| dir != STORE_DIR) {
        return Err(NotUnderstood::new("the store is not in /nix/store", store.unwrap_or_default()));
    }
    let info = top.get("info").ok_or_else(|| NotUnderstood::new("there is no `info`", ""))?;
    object(info, "`info` is not an object")
}

fn add(infos: &mut PathInfos, path: &str, row: &Value) -> Result<(), NotUnderstood> {
    let path = named(path)?;
    let missing = row.is_null() || row.get("valid").is_some_and(|valid| valid == false);
    if missing {
        infos.missing.push(path);
        return Ok(());
    }
    let fields = object(row, "what is said of a path is not an object")?;
    infos.known.push(info(path, fields)?);
    Ok(())
}

fn info(path: StorePath, fields: &Map<String, Value>) -> Result<PathInfo, NotUnderstood> {
    let at = |why| NotUnderstood::new(why, path.as_str());
    Ok(PathInfo {
        nar_hash: hash(fields.get("narHash").ok_or_else(|| at("a path has no narHash"))?)?,
        nar_size: number(fields, "narSize")?.ok_or_else(|| at("a path has no narSize"))?,
        download_size: number(fields, "downloadSize")?,
        references: list(fields, "references")?
            .iter()
            .map(|value| value.as_str().ok_or_else(|| at("a reference is not a text")).and_then(named))
            .collect::<Result<_, _>>()?,
        signatures: list(fields, "signatures")?.iter().map(signature).collect::<Result<_, _>>()?,
        content_address: content_address(fields.get("ca"))?,
        ultimate: match fields.get("ultimate") {
            None | Some(Value::Null) => false,
            Some(value) => value.as_bool().ok_or_else(|| at("`ultimate` is neither true nor false"))?,
        },
        path,
    })
}

/// A whole store path, or one without its folder.
fn named(text: &str) -> Result<StorePath, NotUnderstood> {
    let why = "a name is not a store path";
    let path = if text.starts_with('/') { text.parse() } else { format!("{STORE_DIR}/{text}").parse() };
    path.map_err(|_| NotUnderstood::new(why, text))
}

fn text<'a>(fields: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, NotUnderstood> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            value.as_str().map(Some).ok_or_else(|| NotUnderstood::new("a text is expected", &shown(value)))
        }
    }
}

fn number(fields: &Map<String, Value>, key: &str) -> Result<Option<u64>, NotUnderstood> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or_else(|| NotUnderstood::new("a size is not a number", &shown(value))),
    }
}

fn list<'a>(fields: &'a Map<String, Value>, key: &str) -> Result<&'a [Value], NotUnderstood> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(values)) => Ok(values),
        Some(value @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_))) => {
            Err(NotUnderstood::new("a list is expected", &shown(value)))
        }
    }
}

/// The hash: a text in any form, or `{"algorithm": …, "format": …, "hash": …}`.
fn hash(value: &Value) -> Result<NarHash, NotUnderstood> {
    if let Some(text) = value.as_str() {
        return text.parse();
    }
    let fields = object(value, "a hash is neither a text nor an object")?;
    if text(fields, "algorithm")? != Some("sha256") {
        return Err(NotUnderstood::new("a hash is not a SHA-256", &shown(value)));
    }
    let digits = text(fields, "hash")?.unwrap_or_default();
    format!("sha256:{digits}").parse()
}

/// `NAME:BASE64`, or an object with `keyName` and `sig`.
fn signature(value: &Value) -> Result<PathSignature, NotUnderstood> {
    let parts = match value {
        Value::String(text) => text.split_once(':'),
        Value::Object(fields) => text(fields, "keyName")?
            .or(text(fields, "name")?)
            .zip(Some(text(fields, "sig")?.unwrap_or_default())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    };
    let (key, base64) = parts
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| NotUnderstood::new("a signature has no key name", &shown(value)))?;
    Ok(PathSignature { key: key.to_owned(), base64: base64.to_owned() })
}

/// How the contents make the name: a text as it is, or an object as compact JSON.
fn content_address(value: Option<&Value>) -> Result<Option<String>, NotUnderstood> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(object @ Value::Object(_)) => Ok(Some(object.to_string())),
        Some(value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_))) => {
            Err(NotUnderstood::new("`ca` is neither a text nor an object", &shown(value)))
        }
    }
}

/// The value as a JSON object.
fn object<'a>(value: &'a Value, why: &'static str) -> Result<&'a Map<String, Value>, NotUnderstood> {
    value.as_object().ok_or_else(|| NotUnderstood::new(why, &shown(value)))
}

/// The beginning of a value, for an error.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
}
