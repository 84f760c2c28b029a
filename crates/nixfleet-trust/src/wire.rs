//! The encoding that OpenSSH's keys, signatures and agent messages share: big-endian numbers and counted strings.

/// What was wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// There are fewer bytes than a length says.
    #[error("the bytes end in the middle of a field")]
    Short,
    /// There are more bytes than there should be.
    #[error("bytes are left over behind the last field")]
    LeftOver,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
}

/// Takes fields off the front of some bytes. It never allocates, so a length that lies costs nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(front)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(crate) fn string(&mut self) -> Result<&'a [u8], WireError> {
        let count = usize::try_from(self.u32()?).map_err(|_| WireError::Short)?;
        self.take(count)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.string()?).map_err(|_| WireError::NotUtf8)
    }

    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::LeftOver) }
    }
}

/// Appends a counted string.
pub(crate) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let count = u32::try_from(bytes.len()).expect("nothing that we write is 4 GiB long");
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_order_and_nothing_may_be_left() {
        let mut bytes = vec![7];
        put_string(&mut bytes, b"abc");
        put_string(&mut bytes, b"");
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.byte(), Ok(7));
        assert_eq!(reader.text(), Ok("abc"));
        assert_eq!(reader.end(), Err(WireError::LeftOver));
        assert_eq!(reader.string(), Ok(&b""[..]));
        assert_eq!(reader.end(), Ok(()));
        assert_eq!(reader.byte(), Err(WireError::Short));
    }

    #[test]
    fn a_length_beyond_the_end_is_short_and_allocates_nothing() {
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]).string(), Err(WireError::Short));
        assert_eq!(Reader::new(&[0, 0, 0]).u32(), Err(WireError::Short));
        assert_eq!(Reader::new(&[0, 0, 0, 1, 0xff]).text(), Err(WireError::NotUtf8));
    }
}
