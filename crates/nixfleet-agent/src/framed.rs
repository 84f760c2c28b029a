//! Lines of JSON with a checksum, for files that are appended to: `{"crc":"<8 hex>","entry":{...}}`.
//!
//! The CRC-32 covers the exact bytes of the entry: JSON for a rescue shell, and a torn or altered line is seen. What an
//! unsound line means is for the file's owner to say: the activation journal stops at it, the outbox goes on behind it.

use std::fs::File;
use std::path::Path;

use nixfleet_sys::fs::FsError;

const HEAD: &[u8] = br#"{"crc":""#;
const MIDDLE: &[u8] = br#"","entry":"#;
const TAIL: &[u8] = b"}\n";

/// The line for an entry's JSON, with its newline.
pub(crate) fn frame(json: &[u8]) -> Vec<u8> {
    let mut line = HEAD.to_vec();
    line.extend_from_slice(sum(json).as_bytes());
    line.extend_from_slice(MIDDLE);
    line.extend_from_slice(json);
    line.extend_from_slice(TAIL);
    line
}

/// The JSON of the entry of one line, newline included; `None` when the line is torn or altered.
pub(crate) fn unframe(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(HEAD)?;
    let (crc, rest) = rest.split_at_checked(8)?;
    let json = rest.strip_prefix(MIDDLE)?.strip_suffix(TAIL)?;
    // As text, so that one sum has one spelling.
    (sum(json).as_bytes() == crc).then_some(json)
}

fn sum(json: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(json))
}

/// The lines of a file, each with its newline; the last may lack it.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

/// Cuts the file to `bytes`, synced; does nothing if that is its length.
pub(crate) fn cut(file: &File, path: &Path, bytes: u64) -> Result<(), FsError> {
    match file.metadata().map(|meta| meta.len()) {
        Ok(len) if len == bytes => Ok(()),
        Ok(_) => file.set_len(bytes).and_then(|()| file.sync_all()),
        Err(e) => Err(e),
    }
    .map_err(|source| FsError { action: "cut the torn tail of", path: path.to_owned(), source })
}
