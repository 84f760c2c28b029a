//! The SHA-256 of a path's contents in the one form that signatures cover, whatever form a tool prints.
//!
//! Nix writes the same hash as `sha256:` and 52 characters of its own base32 (`nix-store -q --hash`, signatures), as
//! SRI (`sha256-` and base64), as 64 hexadecimal digits, and lately as an object.

use std::fmt;
use std::str::FromStr;

use super::NotUnderstood;

const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// SHA-256 in Nix's base32: 256 bits at 5 a character.
const NIX32_LEN: usize = 52;

/// A SHA-256 of a path's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NarHash([u8; 32]);

impl NarHash {
    /// The hash itself.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.0
    }

    /// From the raw SHA-256.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// `sha256:` and 52 characters, as in a signature's fingerprint.
impl fmt::Display for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        for at in (0..NIX32_LEN).rev() {
            let (byte, bit) = (at * 5 / 8, at * 5 % 8);
            let high = self.0.get(byte + 1).copied().unwrap_or(0);
            let both = u16::from(self.0[byte]) | u16::from(high) << 8;
            let digit = usize::from(both >> bit & 0x1f);
            write!(f, "{}", char::from(ALPHABET[digit]))?;
        }
        Ok(())
    }
}

impl FromStr for NarHash {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = |rest: &str| match rest.len() {
            NIX32_LEN => from_nix32(rest.as_bytes()),
            64 => from_hex(rest.as_bytes()),
            44 => from_base64(rest.as_bytes()),
            _ => None,
        };
        let found = match (text.strip_prefix("sha256:"), text.strip_prefix("sha256-")) {
            (Some(rest), _) => digits(rest),
            (None, Some(sri)) if sri.len() == 44 => from_base64(sri.as_bytes()),
            (None, _) => None,
        };
        found.map(Self).ok_or_else(|| NotUnderstood::new("a hash is not a SHA-256 in a form we know", text))
    }
}

fn from_nix32(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    for (at, digit) in text.iter().rev().enumerate() {
        let value = u16::try_from(ALPHABET.iter().position(|known| known == digit)?).ok()?;
        let (byte, bit) = (at * 5 / 8, at * 5 % 8);
        let [low, high] = (value << bit).to_le_bytes();
        bytes[byte] |= low;
        match bytes.get_mut(byte + 1) {
            Some(next) => *next |= high,
            None if high != 0 => return None,
            None => {}
        }
    }
    Some(bytes)
}

fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        if pair.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let (high, low) = (char::from(pair[0]).to_digit(16)?, char::from(pair[1]).to_digit(16)?);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(bytes)
}

/// 43 characters and one `=`.
fn from_base64(text: &[u8]) -> Option<[u8; 32]> {
    let (last, digits) = text.split_last()?;
    let mut out = Vec::with_capacity(33);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for digit in digits {
        let value = u32::try_from(BASE64.iter().position(|known| known == digit)?).ok()?;
        held = held << 6 | value;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(held >> bits & 0xff).ok()?);
            held &= (1 << bits) - 1;
        }
    }
    if *last != b'=' || held != 0 {
        return None;
    }
    out.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The SHA-256 of nothing in three forms, as `nix hash` prints them.
    const EMPTY: [&str; 4] = [
        "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
        "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    ];

    #[test]
    fn all_forms_are_one_hash() {
        for form in EMPTY {
            let hash: NarHash = form.parse().expect(form);
            assert_eq!(hash.to_string(), EMPTY[0], "{form}");
        }
    }

    #[test]
    fn what_is_no_sha256_is_refused() {
        let high = format!("sha256:z{}", "0".repeat(51));
        for bad in
            ["", "sha256:", "sha256-", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha512:0", high.as_str()]
        {
            assert!(bad.parse::<NarHash>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_hash_reads_back(bytes in any::<[u8; 32]>()) {
            let hash = NarHash::from_sha256(bytes);
            prop_assert_eq!(hash.to_string().parse::<NarHash>().expect("its own form"), hash);
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC*") {
            if let Ok(hash) = text.parse::<NarHash>() {
                prop_assert_eq!(hash.to_string().len(), 59);
            }
        }
    }
}
