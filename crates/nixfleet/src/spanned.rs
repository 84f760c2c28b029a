//! JSON with the place of every value, so that each fault of a fleet description can be pointed at.
//!
//! The grammar is that of RFC 8259 and nothing more. A text that is not JSON gives one fault, where it stops being so:
//! what is behind that place could only be guessed. A key that stands twice in an object is a fault as well, and both
//! values are kept for it to be shown. Limits: [`BYTES_MAX`] and [`DEPTH_MAX`].

use std::ops::Range;

use nixfleet_sys::text::Place;

/// The largest text that is read, in bytes: 100,000 hosts with three probes each are about 80 MB.
pub const BYTES_MAX: usize = 512 << 20;
/// How deep arrays and objects may nest; nothing in a fleet description nests deeper than a selector.
pub const DEPTH_MAX: u32 = 64;

/// A place in the text, in bytes from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Where it begins.
    pub from: u32,
    /// Where it has ended.
    pub to: u32,
}

impl Span {
    fn new(range: Range<usize>) -> Self {
        let place = |at| u32::try_from(at).expect("a text has at most BYTES_MAX bytes");
        Self { from: place(range.start), to: place(range.end) }
    }
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// An object, in the order of its fields.
    Object(Vec<Field>),
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Where its name stands.
    pub at: Span,
    /// Its name.
    pub name: String,
    /// Its value.
    pub node: Node,
}

impl Value {
    /// What kind of value it is, with its article.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Why a text is not JSON, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct NotJson {
    /// The place.
    pub span: Span,
    /// What is wrong there.
    pub what: String,
}

/// Finds lines and columns; made once for a text, since each answer is then a binary search.
#[derive(Debug)]
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// The lines of `text`.
    pub fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Where `span` begins.
    pub fn position(&self, span: Span) -> Place {
        let at = self.clamp(span.from);
        let line = self.starts.partition_point(|start| *start <= at);
        let column = self.text[self.starts[line - 1]..at].chars().count() + 1;
        Place { line, column }
    }

    /// The line in which `span` begins, without its end.
    pub fn line(&self, span: Span) -> &'a str {
        let line = self.starts.partition_point(|start| *start <= self.clamp(span.from));
        let from = self.starts[line - 1];
        let to = self.starts.get(line).map_or(self.text.len(), |next| next - 1);
        self.text[from..to].trim_end_matches('\r')
    }

    /// A place in the text, at the beginning of a character.
    fn clamp(&self, at: u32) -> usize {
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(self.text.len());
        (0..=at).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0)
    }
}

/// The value in `text`.
pub fn read(text: &str) -> Result<Node, NotJson> {
    if text.len() > BYTES_MAX {
        let what = format!("the text has {} bytes, and {BYTES_MAX} are allowed", text.len());
        return Err(NotJson { span: Span { from: 0, to: 0 }, what });
    }
    let mut reader = Reader { text, at: 0 };
    let node = reader.node(DEPTH_MAX)?;
    reader.skip_space();
    match reader.peek() {
        None => Ok(node),
        Some(_) => Err(reader.refuse("something follows behind the value")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// A fault at the character that is next, or at the end.
    fn refuse(&self, what: impl Into<String>) -> NotJson {
        let length = self.text[self.at..].chars().next().map_or(0, char::len_utf8);
        NotJson { span: Span::new(self.at..self.at + length), what: what.into() }
    }

    fn wanted(&self, what: &str) -> NotJson {
        match self.text[self.at..].chars().next() {
            None => self.refuse(format!("the text ends, and {what} is expected")),
            Some(found) => {
                self.refuse(format!("{what} is expected, and `{}` stands here", found.escape_debug()))
            }
        }
    }

    fn node(&mut self, depth_left: u32) -> Result<Node, NotJson> {
        self.skip_space();
        let from = self.at;
        let value = match self.peek() {
            Some(b'{') => Value::Object(self.object(self.deeper(depth_left)?)?),
            Some(b'[') => Value::List(self.list(self.deeper(depth_left)?)?),
            Some(b'"') => Value::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => Value::Number(self.number()?),
            Some(b'n') => self.word("null", Value::Null)?,
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(_) | None => return Err(self.wanted("a value")),
        };
        Ok(Node { span: Span::new(from..self.at), value })
    }

    fn deeper(&self, depth_left: u32) -> Result<u32, NotJson> {
        let refused = || self.refuse(format!("it nests deeper than {DEPTH_MAX} levels"));
        depth_left.checked_sub(1).ok_or_else(refused)
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, NotJson> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(value);
        }
        Err(self.wanted("a value"))
    }

    fn list(&mut self, depth_left: u32) -> Result<Vec<Node>, NotJson> {
        self.at += 1;
        let mut nodes = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(nodes);
        }
        loop {
            nodes.push(self.node(depth_left)?);
            if self.after_one(b']', "a comma or `]`")? {
                return Ok(nodes);
            }
        }
    }

    fn object(&mut self, depth_left: u32) -> Result<Vec<Field>, NotJson> {
        self.at += 1;
        let mut fields = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(fields);
        }
        loop {
            fields.push(self.field(depth_left)?);
            if self.after_one(b'}', "a comma or `}`")? {
                return Ok(fields);
            }
        }
    }

    fn field(&mut self, depth_left: u32) -> Result<Field, NotJson> {
        self.skip_space();
        let from = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.wanted("the name of a field, in double quotes,"));
        }
        let name = self.string()?;
        let at = Span::new(from..self.at);
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.wanted("a colon"));
        }
        self.at += 1;
        Ok(Field { at, name, node: self.node(depth_left)? })
    }

    /// Whether the list or object ends here; if not, there is a comma and one more.
    fn after_one(&mut self, end: u8, what: &str) -> Result<bool, NotJson> {
        self.skip_space();
        match self.peek() {
            Some(found) if found == end => {
                self.at += 1;
                Ok(true)
            }
            Some(b',') => {
                self.at += 1;
                Ok(false)
            }
            Some(_) | None => Err(self.wanted(what)),
        }
    }

    fn number(&mut self) -> Result<String, NotJson> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            Some(_) | None => return Err(self.wanted("a digit")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.text[from..self.at].to_owned())
    }

    /// At least one digit.
    fn digits(&mut self) -> Result<(), NotJson> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.wanted("a digit"));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<String, NotJson> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let plain = self.text.as_bytes()[self.at..]
                .iter()
                .take_while(|byte| **byte >= 0x20 && !matches!(byte, b'"' | b'\\'))
                .count();
            out.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escaped()?),
                Some(_) => return Err(self.refuse("a control character in a text must be escaped")),
                None => return Err(self.wanted("the closing double quote")),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, NotJson> {
        let from = self.at;
        self.at += 1;
        let plain = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(from),
            Some(_) | None => return Err(self.wanted("one of `\"\\/bfnrtu` after a backslash")),
        };
        self.at += 1;
        Ok(plain)
    }

    /// `\uXXXX`, or two of them for a character beyond the first plane.
    fn unicode(&mut self, from: usize) -> Result<char, NotJson> {
        let first = self.four_digits()?;
        let lone = |reader: &Self| NotJson {
            span: Span::new(from..reader.at),
            what: "half of a pair of escapes is no character".to_owned(),
        };
        if let Some(found) = char::from_u32(first) {
            return Ok(found);
        }
        let paired = first < 0xdc00 && self.text[self.at..].starts_with("\\u");
        if !paired {
            return Err(lone(self));
        }
        self.at += 1;
        let second = self.four_digits()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(lone(self));
        }
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or_else(|| lone(self))
    }

    fn four_digits(&mut self) -> Result<u32, NotJson> {
        self.at += 1;
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            value = value << 4 | digit.ok_or_else(|| self.wanted("a hexadecimal digit"))?;
            self.at += 1;
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests;
