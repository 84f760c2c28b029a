//! The encodings of an ECDSA signature's two numbers: DER, OpenSSH's, and 32 bytes each.

use crate::wire::{Reader, WireError};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// From `SEQUENCE { INTEGER r, INTEGER s }` in strict DER; `None` if it is something else.
pub(super) fn from_der(bytes: &[u8]) -> Option<[u8; 64]> {
    let mut outer = Reader::new(bytes);
    let body = element(&mut outer, SEQUENCE).ok()??;
    outer.end().ok()?;
    let mut inner = Reader::new(body);
    let r = element(&mut inner, INTEGER).ok()??;
    let s = element(&mut inner, INTEGER).ok()??;
    inner.end().ok()?;
    both(r, s)
}

/// A DER element's contents. Lengths of 128 and more do not occur: r and s have at most 33 bytes each.
fn element<'a>(reader: &mut Reader<'a>, tag: u8) -> Result<Option<&'a [u8]>, WireError> {
    let (found, length) = (reader.byte()?, reader.byte()?);
    if found != tag || length >= 128 { Ok(None) } else { reader.take(usize::from(length)).map(Some) }
}

/// From two signed big-endian numbers in their shortest encoding, which DER and OpenSSH share.
pub(super) fn both(r: &[u8], s: &[u8]) -> Option<[u8; 64]> {
    let mut out = [0; 64];
    out[..32].copy_from_slice(&unsigned(r)?);
    out[32..].copy_from_slice(&unsigned(s)?);
    Some(out)
}

fn unsigned(number: &[u8]) -> Option<[u8; 32]> {
    let magnitude = match number {
        // Zero is no part of a signature, and a set top bit means a negative number.
        [] | [0] => return None,
        [first, ..] if *first >= 0x80 => return None,
        [0, rest @ ..] if rest[0] >= 0x80 => rest,
        [0, ..] => return None,
        shortest => shortest,
    };
    let mut out = [0; 32];
    out[32usize.checked_sub(magnitude.len())?..].copy_from_slice(magnitude);
    Some(out)
}
