//! The settings of Nix on this host that decide what we may fetch and run.

use serde_json::{Map, Value};

use super::{object, shown};
use nixfleet_core::nix::NotUnderstood;

/// The settings of Nix that matter to an update.
#[derive(Default, Debug, Clone, PartialEq, Eq)]
pub struct NixSettings {
    /// The caches asked, in order.
    pub substituters: Vec<String>,
    /// The keys trusted.
    pub trusted_keys: Vec<TrustedKey>,
    /// Whether a path without a trusted signature is refused.
    pub require_sigs: bool,
    /// The machine type, such as `x86_64-linux`.
    pub system: String,
    /// Other machine types that this host runs.
    pub extra_platforms: Vec<String>,
}

/// A key whose signatures this host trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// Its name, which signatures repeat.
    pub name: String,
    /// The Ed25519 key in base64.
    pub base64: String,
}

/// The settings in the JSON of `nix config show`.
pub fn parse_settings(json: &[u8]) -> Result<NixSettings, NotUnderstood> {
    let value: Value = serde_json::from_slice(json).map_err(|_| NotUnderstood::new("it is not JSON", ""))?;
    let all = object(&value, "it is not an object")?;
    let keys = texts(all, "trusted-public-keys")?;
    Ok(NixSettings {
        substituters: texts(all, "substituters")?,
        trusted_keys: keys.iter().map(|key| trusted_key(key)).collect::<Result<_, _>>()?,
        require_sigs: setting(all, "require-sigs")?
            .as_bool()
            .ok_or_else(|| NotUnderstood::new("`require-sigs` is neither true nor false", ""))?,
        system: setting(all, "system")?
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| NotUnderstood::new("`system` is not a text", ""))?,
        extra_platforms: texts(all, "extra-platforms")?,
    })
}

fn trusted_key(key: &str) -> Result<TrustedKey, NotUnderstood> {
    let parts = key.split_once(':').filter(|(name, _)| !name.is_empty());
    let (name, base64) = parts.ok_or_else(|| NotUnderstood::new("a trusted key has no name", key))?;
    Ok(TrustedKey { name: name.to_owned(), base64: base64.to_owned() })
}

/// What is set for `name`: each setting is an object with a `value`.
fn setting<'a>(all: &'a Map<String, Value>, name: &'static str) -> Result<&'a Value, NotUnderstood> {
    all.get(name)
        .and_then(|one| one.get("value"))
        .ok_or_else(|| NotUnderstood::new("a setting is missing", name))
}

fn texts(all: &Map<String, Value>, name: &'static str) -> Result<Vec<String>, NotUnderstood> {
    let value = setting(all, name)?;
    let odd = || NotUnderstood::new("a setting is not a list of texts", &shown(value));
    let rows = value.as_array().ok_or_else(odd)?;
    rows.iter().map(|row| row.as_str().map(str::to_owned).ok_or_else(odd)).collect()
}
