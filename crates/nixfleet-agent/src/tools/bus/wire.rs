//! Messages of D-Bus as bytes: calls are written, everything else is read.
//!
//! `zbus` knows the wire format. Its own connections cannot be used: over this socket the service manager gives its
//! well-known name as the sender of every answer, where the specification has a unique one, and `zbus` refuses that.

use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{Endian, NATIVE_ENDIAN, to_bytes};
use zbus::{DynamicType, Type, Variant};

use nixfleet_core::nix::NotUnderstood;

/// Bytes that say how long a message is.
pub const BEGINNING: usize = 16;
/// The version of the protocol.
const VERSION: u8 = 1;
const CALL: u8 = 1;
const ORDER: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };

/// Fields of a header, by their numbers in the specification.
mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const ERROR_NAME: u8 = 4;
    pub(super) const REPLY_SERIAL: u8 = 5;
    pub(super) const SIGNATURE: u8 = 8;
}

/// Byte order, kind, flags, version, length of the body, serial number, fields.
type Header<'a> = (u8, u8, u8, u8, u32, u32, Vec<(u8, Variant<'a>)>);

/// What kind of message was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The answer to a call.
    Return,
    /// The refusal of a call.
    Error,
    /// Something that happened.
    Signal,
    /// A call, or a kind that later versions of the protocol may bring; neither is for us.
    Other,
}

/// A message that was received.
#[derive(Debug)]
pub struct Heard {
    /// Its kind.
    pub kind: Kind,
    /// The serial number of the call that it answers.
    pub reply_to: Option<u32>,
    /// The interface of a signal; empty if it has none.
    pub interface: String,
    /// The name of a signal; empty if it has none.
    pub member: String,
    /// The name of an error; empty if it is none.
    pub error: String,
    signature: String,
    body: Data<'static, 'static>,
}

/// A method call as bytes. The body is a tuple of the arguments.
pub fn call<B>(
    serial: u32,
    path: &str,
    (interface, method): (&str, &str),
    body: &B,
) -> Result<Vec<u8>, zbus::Error>
where
    B: Serialize + DynamicType,
{
    // Arguments are a struct to serde; in a message they stand without its parentheses.
    let signature = body.signature().to_string();
    let fields = [
        (field::PATH, Value::Path(path)),
        (field::INTERFACE, Value::Text(interface)),
        (field::MEMBER, Value::Text(method)),
        (field::SIGNATURE, Value::Signature(arguments(&signature))),
    ];
    message(CALL, serial, &fields, &to_bytes(Context::new(NATIVE_ENDIAN, 0), body)?)
}

/// A value of a header's field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Path(&'a str),
    Text(&'a str),
    Signature(&'a str),
}

/// A message as bytes.
pub(super) fn message(
    kind: u8,
    serial: u32,
    fields: &[(u8, Value<'_>)],
    body: &[u8],
) -> Result<Vec<u8>, zbus::Error> {
    let len = |len: usize| u32::try_from(len).map_err(|_| zbus::Error::ExcessData);
    let mut out = vec![ORDER, kind, 0, VERSION];
    out.extend(len(body.len())?.to_ne_bytes());
    out.extend(serial.to_ne_bytes());
    out.extend([0; 4]);
    for (number, value) in fields {
        align(&mut out, 8);
        out.push(*number);
        match value {
            Value::Path(text) | Value::Text(text) => {
                let of = if matches!(value, Value::Path(_)) { b'o' } else { b's' };
                out.extend([1, of, 0]);
                align(&mut out, 4);
                out.extend(len(text.len())?.to_ne_bytes());
                out.extend(text.bytes().chain([0]));
            }
            Value::Signature(text) => {
                out.extend([1, b'g', 0]);
                out.push(u8::try_from(text.len()).map_err(|_| zbus::Error::ExcessData)?);
                out.extend(text.bytes().chain([0]));
            }
        }
    }
    let fields_len = len(out.len() - BEGINNING)?;
    out[BEGINNING - 4..BEGINNING].copy_from_slice(&fields_len.to_ne_bytes());
    align(&mut out, 8);
    out.extend(body);
    Ok(out)
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn arguments(signature: &str) -> &str {
    signature.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(signature)
}

fn order_of(byte: u8) -> Result<Endian, NotUnderstood> {
    match byte {
        b'l' => Ok(Endian::Little),
        b'B' => Ok(Endian::Big),
        other => Err(NotUnderstood::new("a byte order is not known", &other.to_string())),
    }
}

/// How long a message is that begins so, its beginning included.
pub fn length(beginning: &[u8; BEGINNING]) -> Result<usize, NotUnderstood> {
    let order = order_of(beginning[0])?;
    let number = |at: usize| {
        let bytes = [beginning[at], beginning[at + 1], beginning[at + 2], beginning[at + 3]];
        let number = match order {
            Endian::Little => u32::from_le_bytes(bytes),
            Endian::Big => u32::from_be_bytes(bytes),
        };
        usize::try_from(number).unwrap_or(usize::MAX)
    };
    let header = BEGINNING.saturating_add(number(12)).checked_next_multiple_of(8);
    header
        .and_then(|header| header.checked_add(number(4)))
        .ok_or_else(|| NotUnderstood::new("a message has no end", "its length overflows"))
}

/// The message in the bytes, all of which belong to it.
pub fn read(bytes: &[u8]) -> Result<Heard, NotUnderstood> {
    let odd = |error: zbus::Error| NotUnderstood::new("a header is malformed", &error.to_string());
    let order = order_of(bytes.first().copied().unwrap_or_default())?;
    let data = Data::new(bytes.to_vec(), Context::new(order, 0));
    let (header, end): (Header<'_>, usize) = data.deserialize().map_err(odd)?;
    let (_, kind, _, version, body_len, _, fields) = header;
    let body = end.next_multiple_of(8);
    let wanted = usize::try_from(body_len).ok().and_then(|len| body.checked_add(len));
    if version != VERSION || wanted != Some(bytes.len()) {
        return Err(NotUnderstood::new("a message is not of its length or version", &format!("{version}")));
    }
    let find = |wanted: u8| fields.iter().find(|(number, _)| *number == wanted).map(|(_, value)| value);
    let text = |wanted: u8| match find(wanted) {
        Some(Variant::Str(text)) => text.to_string(),
        Some(_) | None => String::new(),
    };
    let signature = match find(field::SIGNATURE) {
        Some(Variant::Signature(signature)) => arguments(&signature.to_string()).to_owned(),
        Some(_) | None => String::new(),
    };
    Ok(Heard {
        kind: match kind {
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        },
        reply_to: find(field::REPLY_SERIAL).and_then(|value| u32::try_from(value).ok()),
        interface: text(field::INTERFACE),
        member: text(field::MEMBER),
        error: text(field::ERROR_NAME),
        signature,
        body: Data::new(bytes[body..].to_vec(), Context::new(order, 0)),
    })
}

impl Heard {
    /// What it says, if that is of the type that is wanted; several arguments are a tuple.
    pub fn body<A: DeserializeOwned + Type>(&self) -> Result<A, NotUnderstood> {
        let wanted = A::SIGNATURE.to_string();
        // One argument that is a struct looks like its fields without this.
        if arguments(&wanted) != self.signature {
            return Err(NotUnderstood::new("an answer is of another type", &self.signature));
        }
        let read = self.body.deserialize().map(|(body, _)| body);
        read.map_err(|error| NotUnderstood::new("an answer is malformed", &error.to_string()))
    }
}
