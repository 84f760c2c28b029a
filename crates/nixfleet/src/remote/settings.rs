//! Where the control plane is, by what it is known, and with whose token it is asked.
//!
//! Each comes from the command line, else from the environment, else from a file of the person. The file is about one
//! server: when another one is named, nothing in it counts, so that a token never goes to a server that it is not for.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nixfleet_sys::pin::{NotAPin, Pin};
use nixfleet_sys::text::nearest;
use reqwest::Url;
use toml::de::{DeTable, DeValue};

/// The largest file with settings, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// The longest token, in bytes; those that a control plane makes have 52.
const TOKEN_BYTES_MAX: u64 = 4 << 10;

/// What a person says in one place; what is not said is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The address of the control plane.
    pub server: Option<String>,
    /// The token itself.
    pub token: Option<Token>,
    /// The key of the server.
    pub pin: Option<String>,
    /// A file of authorities that vouch for the server.
    pub ca: Option<PathBuf>,
}

/// A person's token. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// All that is needed to ask.
#[derive(Debug)]
pub struct Settings {
    /// Where.
    pub server: Url,
    /// As whom.
    pub token: Token,
    /// Whom the server must be.
    pub known_by: KnownBy,
}

/// By what a server is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownBy {
    /// The authorities of this machine vouch for its name.
    Machine,
    /// Those in this file do, and no other.
    Authorities(PathBuf),
    /// Its key.
    Pin(Pin),
}

/// Why a control plane cannot be asked with what was said.
#[derive(Debug, thiserror::Error)]
pub enum NotSet {
    /// No address.
    #[error("it is not said where the control plane is")]
    NoServer,
    /// No token.
    #[error("there is no token for {0}")]
    NoToken(Url),
    /// An address that is none.
    #[error("`{0}` is not the address of a control plane: write https://HOST:PORT")]
    Server(String),
    /// A token would be readable on the way.
    #[error("`{0}` is not encrypted, and a token would be read on the way: write https://…")]
    Plain(Url),
    /// A token that cannot be one.
    #[error("the token is empty, or has characters that no token has")]
    Token,
    /// A pin that is none.
    #[error("`{0}` is not a pin")]
    Pin(String, #[source] NotAPin),
    /// Two ways to know the server.
    #[error("a pin and authorities were given, and a server is known by one of them")]
    Both,
    /// A file that cannot be read.
    #[error("cannot read `{}`", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// Everybody could read the token.
    #[error("`{}` has mode {mode:04o}, so that others can read the token in it", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Something in the file.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What.
        what: String,
    },
}

impl Token {
    /// A token; spaces and newlines around it are none of it.
    pub fn new(text: &str) -> Result<Self, NotSet> {
        let text = text.trim();
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || !is_plain { Err(NotSet::Token) } else { Ok(Self(text.to_owned())) }
    }

    /// The token in a file that only its owner can read.
    pub fn read(path: &Path) -> Result<Self, NotSet> {
        Self::new(&read_secret(path, TOKEN_BYTES_MAX)?)
    }

    /// The token, to be sent.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Said {
    /// What stands in a person's file; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, NotSet> {
        match read_secret(path, FILE_BYTES_MAX) {
            Ok(text) => Self::parse(path, &text).map(Some),
            Err(NotSet::File(_, error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, NotSet> {
        const KEYS: [&str; 4] = ["server", "token", "pin", "ca"];
        let wrong = |offset: usize, what: String| {
            let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
            NotSet::Line { path: path.to_owned(), line, what }
        };
        let table = DeTable::parse(text).map_err(|error| {
            // Not the text itself: a token may stand in it.
            wrong(error.span().map_or(0, |span| span.start), format!("this is not TOML: {}", error.message()))
        })?;
        let mut said = Self::default();
        for (key, value) in table.get_ref() {
            let at = key.span().start;
            let name = key.get_ref().as_ref();
            let DeValue::String(value) = value.get_ref() else {
                return Err(wrong(at, format!("`{name}` is a text: write {name} = \"…\"")));
            };
            match name {
                "server" => said.server = Some(value.to_string()),
                "token" => said.token = Some(Token::new(value)?),
                "pin" => said.pin = Some(value.to_string()),
                "ca" => said.ca = Some(PathBuf::from(value.as_ref())),
                _ => {
                    let meant = nearest(name, KEYS).map_or_else(
                        || format!("there are `{}`", KEYS.join("`, `")),
                        |near| format!("did you mean `{near}`?"),
                    );
                    return Err(wrong(at, format!("there is no `{name}`; {meant}")));
                }
            }
        }
        Ok(said)
    }
}

/// Puts together what was said: `first` counts before `then`, and what `file` says comes last, if it is about the server.
pub fn settle(
    first: Said,
    then: Said,
    file: impl FnOnce() -> Result<Option<Said>, NotSet>,
) -> Result<Settings, NotSet> {
    let known_by = known_by(&first)?.map_or_else(|| known_by(&then), |known| Ok(Some(known)))?;
    let named = first.server.or(then.server).map(|server| address(&server)).transpose()?;
    let token = first.token.or(then.token);
    if let (Some(server), Some(token), Some(known_by)) = (&named, &token, &known_by) {
        return Ok(Settings { server: server.clone(), token: token.clone(), known_by: known_by.clone() });
    }
    let kept = file()?.unwrap_or_default();
    let kept_server = kept.server.as_deref().map(address).transpose()?;
    let about_another = matches!((&named, &kept_server), (Some(named), Some(kept)) if named != kept);
    let kept = if about_another { Said::default() } else { kept };
    let server = named.or(kept_server).ok_or(NotSet::NoServer)?;
    let token = token.or(kept.token.clone()).ok_or_else(|| NotSet::NoToken(server.clone()))?;
    let known_by = match known_by {
        Some(known_by) => known_by,
        None => self::known_by(&kept)?.unwrap_or(KnownBy::Machine),
    };
    Ok(Settings { server, token, known_by })
}

fn known_by(said: &Said) -> Result<Option<KnownBy>, NotSet> {
    match (&said.pin, &said.ca) {
        (None, None) => Ok(None),
        (None, Some(file)) => Ok(Some(KnownBy::Authorities(file.clone()))),
        (Some(pin), None) => {
            let read = pin.parse().map_err(|error| NotSet::Pin(pin.clone(), error))?;
            Ok(Some(KnownBy::Pin(read)))
        }
        (Some(_), Some(_)) => Err(NotSet::Both),
    }
}

/// The address of a control plane: a scheme, a host, perhaps a port, and nothing behind them.
fn address(text: &str) -> Result<Url, NotSet> {
    let no = || NotSet::Server(text.to_owned());
    let url: Url = text.trim().parse().map_err(|_| no())?;
    match url.scheme() {
        "https" => {}
        "http" => return Err(NotSet::Plain(url)),
        _ => return Err(no()),
    }
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let nobody = url.username().is_empty() && url.password().is_none();
    if bare && nobody && url.has_host() { Ok(url) } else { Err(no()) }
}

/// A file that only its owner can read. The mode is that of the file that is read, whatever happens to its name.
fn read_secret(path: &Path, bytes_max: u64) -> Result<String, NotSet> {
    let no = |error| NotSet::File(path.to_owned(), error);
    let file = File::open(path).map_err(no)?;
    let mode = file.metadata().map_err(no)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(NotSet::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(bytes_max).read_to_string(&mut text).map_err(no)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nixfleet_sys::fs;

    const PIN: &str = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn said(server: Option<&str>, token: Option<&str>, pin: Option<&str>) -> Said {
        let token = token.map(|token| Token::new(token).expect("a token"));
        Said { server: server.map(str::to_owned), token, pin: pin.map(str::to_owned), ca: None }
    }

    fn kept() -> Said {
        said(Some("https://fleet.example:8443"), Some("kept"), Some(PIN))
    }

    #[test]
    fn what_is_said_now_counts_before_what_was_said_and_the_file_comes_last() {
        let now = said(None, Some("now"), None);
        let environment = said(Some("https://fleet.example:8443"), Some("environment"), None);
        let settings = settle(now, environment, || Ok(Some(kept()))).expect("enough");
        assert_eq!(settings.token.secret(), "now");
        assert_eq!(settings.known_by, KnownBy::Pin(PIN.parse().expect("a pin")));
        let settings = settle(Said::default(), Said::default(), || Ok(Some(kept()))).expect("enough");
        assert_eq!((settings.token.secret(), settings.server.port()), ("kept", Some(8443)));
    }

    #[test]
    fn a_token_never_goes_to_another_server_than_the_one_it_is_kept_for() {
        for other in ["https://fleet.example", "https://other.example:8443"] {
            let refused = settle(said(Some(other), None, None), Said::default(), || Ok(Some(kept())));
            assert!(matches!(refused, Err(NotSet::NoToken(_))), "{other}");
            let own = said(Some(other), Some("own"), None);
            let settings = settle(own, Said::default(), || Ok(Some(kept()))).expect("enough");
            assert_eq!(settings.known_by, KnownBy::Machine, "its key is another server's");
        }
    }

    #[test]
    fn an_address_is_encrypted_and_has_nothing_behind_it() {
        for bad in
            ["fleet.example", "http://fleet.example", "https://a@b", "https://a/v1", "https://a?x", "ftp://a"]
        {
            let said = said(Some(bad), Some("t"), None);
            assert!(settle(said, Said::default(), || Ok(None)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_and_a_missing_one_is_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("nixfleet");
        assert_eq!(Said::read(&path).expect("none"), None);
        let text = "server = \"https://a\"\ntoken = \"t\"\n";
        fs::write_atomic_mode(&path, text.as_bytes(), 0o640).expect("written");
        let refused = Said::read(&path).expect_err("exposed").to_string();
        assert!(refused.ends_with("has mode 0640, so that others can read the token in it"), "{refused}");
        fs::write_atomic(&path, text.as_bytes()).expect("written");
        let read = Said::read(&path).expect("read").expect("there");
        assert_eq!(read, said(Some("https://a"), Some("t"), None));
    }

    #[test]
    fn faults_of_the_file_have_their_line_and_never_the_token() {
        for (text, wanted) in [
            (
                "server = \"https://a\"\ntokem = \"hunter2\"\n",
                "f:2: there is no `tokem`; did you mean `token`?",
            ),
            ("\npin = 7\n", "f:2: `pin` is a text: write pin = \"…\""),
            ("token = \"hunter2\n", "f:1: this is not TOML"),
        ] {
            let refused = Said::parse(Path::new("f"), text).expect_err(text).to_string();
            assert!(refused.starts_with(wanted) && !refused.contains("hunter2"), "{refused}");
        }
        assert!(!format!("{:?}", kept()).contains("kept\""));
    }
}
