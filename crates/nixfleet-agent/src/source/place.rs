//! Where releases come from: the one text in the configuration, read strictly.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nixfleet_core::host::world::SourceKind;
use reqwest::Url;

/// What stands before the address of a control plane. There is none without TLS: the host's key is who it is.
const CONTROL_PLANE: &str = "control-plane+";

/// Where releases come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder of this host: a mounted disk, a USB stick, a synchronised folder.
    Folder(PathBuf),
    /// A web server.
    Web(WebAddress),
    /// A control plane: it serves the same documents to hosts whose keys it knows, takes their reports, and opens turns.
    ControlPlane(WebAddress),
}

/// The address of a folder on a web server; it ends with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebAddress(Url);

/// Why a text names no release source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; write https://HOST/FOLDER, http://HOST/FOLDER, control-plane+https://HOST, file:///FOLDER or /FOLDER"
)]
pub struct NotAPlace(&'static str);

impl WebAddress {
    /// Whether the server proves who it is.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The address of a document in the folder; `path` is one of `layout`.
    pub(crate) fn of(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}{path}", self.0.path()));
        url
    }

    /// The address of something that is asked with a query.
    pub(crate) fn of_query(&self, path: &str) -> Url {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = self.of(path);
        url.set_query(query);
        url
    }
}

impl fmt::Display for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Place {
    /// Who opens a host's turn there.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Folder(_) | Self::Web(_) => SourceKind::Static,
            Self::ControlPlane(_) => SourceKind::ControlPlane,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Web(address) => address.fmt(f),
            Self::ControlPlane(address) => write!(f, "{CONTROL_PLANE}{address}"),
        }
    }
}

impl FromStr for Place {
    type Err = NotAPlace;
    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("http" | "https") => web(text).map(Self::Web),
            Some("control-plane+https") => web(&text[CONTROL_PLANE.len()..]).map(Self::ControlPlane),
            Some("file") => folder(&text["file://".len()..]).map(Self::Folder),
            Some(_) => Err(NotAPlace("it has another scheme")),
            None => folder(text).map(Self::Folder),
        }
    }
}

fn folder(text: &str) -> Result<PathBuf, NotAPlace> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(NotAPlace("it is neither a web address nor an absolute path"));
    }
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(NotAPlace("it has `..` in it"));
    }
    Ok(path.to_owned())
}

fn web(text: &str) -> Result<WebAddress, NotAPlace> {
    let mut url = Url::parse(text).map_err(|_| NotAPlace("it is not a web address"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(NotAPlace("it has a user or a password, which would end up in logs"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(NotAPlace("it has a `?` or a `#`, and names of documents are added to it"));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(WebAddress(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_folder_or_an_address_and_documents_are_below_it() {
        let web = |text: &str| match text.parse() {
            Ok(Place::Web(address)) => address.of("channels/stable/latest").to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(web("https://r.example"), "https://r.example/channels/stable/latest");
        assert_eq!(web("http://r.example:8080/a/b"), "http://r.example:8080/a/b/channels/stable/latest");
        assert_eq!(web("HTTPS://R.Example/a/"), "https://r.example/a/channels/stable/latest");
        let address = "control-plane+https://cp.example:8443";
        match address.parse() {
            Ok(Place::ControlPlane(cp)) => {
                assert_eq!(cp.of("root/1.json").to_string(), "https://cp.example:8443/root/1.json");
                assert_eq!(Place::ControlPlane(cp).to_string(), format!("{address}/"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!("file:///srv/r".parse(), Ok(Place::Folder("/srv/r".into())));
        assert_eq!("/srv/r".parse(), Ok(Place::Folder("/srv/r".into())));
    }

    #[test]
    fn what_is_no_place_is_refused_with_the_forms_and_a_password_is_not_repeated() {
        for bad in [
            "",
            "srv/r",
            "file://srv",
            "ftp://x/",
            "control-plane+http://x/",
            "control-plane://x/",
            "https://",
            "https://u:secret@x/",
            "https://u@x/",
            "https://x/?token=secret",
            "https://x/#a",
            "/srv/../r",
        ] {
            let said = bad.parse::<Place>().expect_err(bad).to_string();
            assert!(said.contains("write https://HOST/FOLDER"), "{said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
