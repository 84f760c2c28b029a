//! The part of the NBD protocol by which qemu uses a [`Disk`]: one client, simple answers, flush and FUA.
//!
//! The client is the qemu that we started, so a strange request ends the connection and nothing more is made of it.
//! Numbers and names are those of the protocol's own description (`doc/proto.md` of the NBD project).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use super::disk::Disk;

const MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_ANSWER_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const ANSWER_MAGIC: u32 = 0x6744_6698;

/// Handshake flags: fixed newstyle, no zeroes.
const HANDSHAKE: u16 = 1 | 2;
const OPT_ABORT: u32 = 2;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 1 << 31 | 1;
/// The export has flags, takes flushes, and takes FUA.
const EXPORT: u16 = 1 | 1 << 2 | 1 << 3;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const FUA: u16 = 1;
const EINVAL: u32 = 22;
const EIO: u32 = 5;

/// An option is a name and a few numbers.
const OPTION_BYTES_MAX: u32 = 8 << 10;
/// What qemu sends at most in one request.
const REQUEST_BYTES_MAX: u32 = 32 << 20;

/// Serves the disk until the client is gone; its death is a normal end.
pub(super) fn serve(mut stream: UnixStream, disk: &Mutex<Disk>) -> io::Result<()> {
    let size = disk.lock().unwrap_or_else(PoisonError::into_inner).size();
    let served =
        greet(&mut stream, size).and_then(|go| if go { transmit(&mut stream, disk) } else { Ok(()) });
    match served {
        Err(error) if gone(&error) => Ok(()),
        served => served,
    }
}

fn gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset)
}

/// Options until the client says go; false if it leaves.
fn greet(stream: &mut UnixStream, size: u64) -> io::Result<bool> {
    let hello = [&MAGIC.to_be_bytes()[..], &OPTION_MAGIC.to_be_bytes(), &HANDSHAKE.to_be_bytes()].concat();
    stream.write_all(&hello)?;
    let _client_flags = u32(stream)?;
    loop {
        expect(u64(stream)? == OPTION_MAGIC)?;
        let (option, length) = (u32(stream)?, u32(stream)?);
        expect(length <= OPTION_BYTES_MAX)?;
        io::copy(&mut Read::take(&mut *stream, u64::from(length)), &mut io::sink())?;
        match option {
            OPT_GO => {
                let info = [&0_u16.to_be_bytes()[..], &size.to_be_bytes(), &EXPORT.to_be_bytes()].concat();
                answer_option(stream, option, REP_INFO, &info)?;
                answer_option(stream, option, REP_ACK, &[])?;
                return Ok(true);
            }
            OPT_ABORT => {
                answer_option(stream, option, REP_ACK, &[])?;
                return Ok(false);
            }
            _ => answer_option(stream, option, REP_ERR_UNSUP, &[])?,
        }
    }
}

fn answer_option(stream: &mut UnixStream, option: u32, answer: u32, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let head = [option, answer, length].map(u32::to_be_bytes).concat();
    stream.write_all(&[&OPTION_ANSWER_MAGIC.to_be_bytes()[..], &head, bytes].concat())
}

fn transmit(stream: &mut UnixStream, disk: &Mutex<Disk>) -> io::Result<()> {
    loop {
        expect(u32(stream)? == REQUEST_MAGIC)?;
        let (flags, kind) = (u16(stream)?, u16(stream)?);
        let (handle, at, length) = (u64(stream)?, u64(stream)?, u32(stream)?);
        expect(length <= REQUEST_BYTES_MAX)?;
        let mut bytes = vec![0; if matches!(kind, READ | WRITE) { length as usize } else { 0 }];
        if kind == WRITE {
            stream.read_exact(&mut bytes)?;
        }
        if kind == DISCONNECT {
            return Ok(());
        }
        let done =
            act(&mut disk.lock().unwrap_or_else(PoisonError::into_inner), (kind, flags), at, &mut bytes);
        let error = match &done {
            Ok(()) => 0,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => EINVAL,
            Err(_) => EIO,
        };
        let sent: &[u8] = if kind == READ && done.is_ok() { &bytes } else { &[] };
        let head = [ANSWER_MAGIC, error].map(u32::to_be_bytes).concat();
        stream.write_all(&[&head[..], &handle.to_be_bytes(), sent].concat())?;
    }
}

fn act(disk: &mut Disk, (kind, flags): (u16, u16), at: u64, bytes: &mut [u8]) -> io::Result<()> {
    match kind {
        READ => disk.read(at, bytes),
        WRITE if flags & FUA != 0 => disk.write_through(at, bytes),
        WRITE => disk.write(at, bytes),
        FLUSH => disk.flush(),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "no such request")),
    }
}

fn expect(holds: bool) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "this is not what NBD says")) }
}

fn bytes<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u16(stream: &mut UnixStream) -> io::Result<u16> {
    bytes(stream).map(u16::from_be_bytes)
}

fn u32(stream: &mut UnixStream) -> io::Result<u32> {
    bytes(stream).map(u32::from_be_bytes)
}

fn u64(stream: &mut UnixStream) -> io::Result<u64> {
    bytes(stream).map(u64::from_be_bytes)
}
