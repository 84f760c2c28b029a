//! JSON read strictly: one meaning for one text.
//!
//! Two readers of the same signed bytes must never disagree on what they say. So a key that stands twice in an object
//! is refused anywhere (serde's maps would keep the last), nesting is bounded, nothing may follow the value, and
//! unknown fields are refused by the types themselves (see `nixfleet_core::model`).

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// How deep arrays and objects may nest. Selectors are the deepest that we write; people's have three levels.
pub const DEPTH_MAX: u8 = 32;

/// Why a text was not read.
#[derive(Debug, thiserror::Error)]
#[error("it is not the JSON that was expected")]
pub struct JsonError(#[source] serde_json::Error);

/// The `T` in `bytes`, if they are JSON with one meaning. Unknown fields are for `T` to refuse.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let mut scan = serde_json::Deserializer::from_slice(bytes);
    Unambiguous { depth_left: DEPTH_MAX }.deserialize(&mut scan).map_err(JsonError)?;
    serde_json::from_slice(bytes).map_err(JsonError)
}

/// Walks a value, keeps nothing, and refuses double keys and deep nesting.
struct Unambiguous {
    depth_left: u8,
}

impl Unambiguous {
    fn inner<E: serde::de::Error>(&self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left }),
            None => Err(E::custom(format_args!("it nests deeper than {DEPTH_MAX} levels"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Unambiguous {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self.inner()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = object.next_key::<String>()? {
            object.next_value_seed(self.inner()?)?;
            if let Some(twice) = keys.replace(key) {
                let shown: String = twice.chars().take(100).collect();
                return Err(A::Error::custom(format_args!("the key {shown:?} stands twice in one object")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn refusal(text: &str) -> String {
        read::<Value>(text.as_bytes()).expect_err(text).0.to_string()
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_at_any_depth_and_however_it_is_written() {
        for text in
            [r#"{"a":1,"a":1}"#, r#"[{"x":{"a":1,"b":2,"a":3}}]"#, r#"{"a":1,"\u0061":2}"#, r#"{"":1,"":2}"#]
        {
            assert!(refusal(text).contains("stands twice"), "{text}");
        }
        read::<Value>(br#"{"a":{"a":1},"b":{"a":2}}"#).expect("the same key in different objects is fine");
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        read::<Value>(nested(usize::from(DEPTH_MAX)).as_bytes()).expect("as deep as is allowed");
        assert!(refusal(&nested(usize::from(DEPTH_MAX) + 2)).contains("nests deeper"));
        assert!(refusal(&"[".repeat(60_000)).contains("nests deeper"));
    }

    #[test]
    fn nothing_may_follow_and_noise_is_refused() {
        for text in ["{} {}", "{}x", "", "nul", "\"\u{1}\"", "1e999", "{\"a\":}"] {
            refusal(text);
        }
        assert!(read::<Value>(b"\"\xff\"").is_err());
    }
}
