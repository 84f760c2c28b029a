//! `nix-store --serve`: what the local store says of a closure, in some 60 % of the time of `nix path-info`.
//!
//! It is what stores at `ssh://` speak, and has had this form since Nix 2.4: numbers are eight bytes, the lowest first; a text
//! is its length, its bytes, and zeros up to a multiple of eight; a list is its length and its elements. Nothing tells of
//! an error but the end of the answers. So whatever is odd here is an error, and whoever asked asks `nix path-info`.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use nixfleet_core::ids::StorePath;
use nixfleet_core::nix::NotUnderstood;
use nixfleet_core::nix::path_info::{PathInfo, PathSignature};
use nixfleet_sys::exec::{Cmd, ExecError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::{ToolError, Tools};

const OUR_MAGIC: u64 = 0x390c_9deb;
const ITS_MAGIC: u64 = 0x5452_eecb;
/// 2.6, as Nix 2.8 and 2.26 take it from an older client; from 2.4 on, hashes and signatures are told.
const OUR_VERSION: u64 = 0x206;
/// The first number of its version, above the byte of the second.
const ITS_MAJOR: u64 = 2;
const ITS_LEAST_MINOR: u64 = 4;
const QUERY_PATH_INFOS: u64 = 2;
const QUERY_CLOSURE: u64 = 7;

/// The most bytes in a text: a path has 256, a signature some 200.
const TEXT_BYTES_MAX: u64 = 64 << 10;
/// The most elements of a list; the closure of a system has some thousand.
const ELEMENTS_MAX: u64 = 1_000_000;

/// The closure of a large system is answered within a second; who waits in vain asks otherwise.
const DEADLINE: Duration = Duration::from_secs(20);

/// `nix-store --serve`, which is asked about the local store and may not change it.
pub fn serve(tools: &Tools) -> Cmd {
    tools.nix_command(&tools.nix_store).arg("--serve").args(tools.nix_option_args()).deadline(DEADLINE)
}

impl Tools {
    /// Tells of each path of the closure of `system` what the local store says of it, as it says it. It was all of it only if
    /// this ends well.
    ///
    /// What only [`super::super::nix`] tells is missing: whether this store built a path itself.
    pub async fn served_closure(
        &self,
        system: &StorePath,
        mut told: impl FnMut(PathInfo),
    ) -> std::result::Result<(), ToolError> {
        let cmd = serve(self);
        let talk = async |out, input| closure(out, input, system, &mut told).await;
        cmd.talk(talk).await.map_err(|error| match error {
            ExecError::Lost { line, source } if source.kind() == ErrorKind::InvalidData => {
                let source = NotUnderstood::new("it is not what a store serves", &source.to_string());
                ToolError::NotUnderstood { line, source }
            }
            error => ToolError::Exec(error),
        })
    }
}

/// Asks for the closure of `system`, and then for all of it.
async fn closure(
    answers: impl AsyncRead + Unpin,
    mut questions: impl AsyncWrite + Unpin,
    system: &StorePath,
    told: &mut impl FnMut(PathInfo),
) -> Result<()> {
    let mut answers = Answers(BufReader::with_capacity(64 << 10, answers));
    let mut first = Question::default().number(OUR_MAGIC).number(OUR_VERSION);
    // Without the outputs of derivations.
    first = first.number(QUERY_CLOSURE).number(0).texts([system].into_iter());
    questions.write_all(&first.0).await?;
    answers.greeting().await?;
    let paths: BTreeSet<StorePath> = answers.paths().await?.into_iter().collect();
    questions.write_all(&Question::default().number(QUERY_PATH_INFOS).texts(paths.iter()).0).await?;
    // It says each once, in their order, and leaves out what is not valid any more.
    for path in &paths {
        let info = answers.info().await?.filter(|info| info.path == *path);
        let info = info.ok_or_else(|| odd("it does not tell of the paths that it was asked for"))?;
        if info.references.iter().any(|reference| !paths.contains(reference)) {
            return Err(odd("a path refers to one that is not in the closure"));
        }
        told(info);
    }
    match answers.info().await? {
        None if paths.contains(system) => Ok(()),
        Some(_) | None => Err(odd("it tells of other paths than it was asked for")),
    }
}

/// What is written.
#[derive(Default)]
struct Question(Vec<u8>);

impl Question {
    fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn texts<'a>(mut self, texts: impl ExactSizeIterator<Item = &'a StorePath>) -> Self {
        self = self.number(texts.len() as u64);
        for text in texts.map(StorePath::as_str) {
            self = self.number(text.len() as u64);
            self.0.extend(text.as_bytes());
            self.0.resize(self.0.len().next_multiple_of(8), 0);
        }
        self
    }
}

/// What is read.
struct Answers<R>(BufReader<R>);

impl<R: AsyncRead + Unpin> Answers<R> {
    async fn greeting(&mut self) -> Result<()> {
        if self.0.read_u64_le().await? != ITS_MAGIC {
            return Err(odd("it does not greet as a store does"));
        }
        match self.0.read_u64_le().await? {
            version if version >> 8 == ITS_MAJOR && version & 0xff >= ITS_LEAST_MINOR => Ok(()),
            _ => Err(odd("it speaks another version")),
        }
    }

    /// The next path; nothing at the end of them.
    async fn info(&mut self) -> Result<Option<PathInfo>> {
        let path = self.text().await?;
        if path.is_empty() {
            return Ok(None);
        }
        let _deriver = self.text().await?;
        let references = self.paths().await?;
        let _download_size = self.0.read_u64_le().await?;
        let nar_size = self.0.read_u64_le().await?;
        let nar_hash = self.text().await?.parse().map_err(|_| odd("a hash is none"))?;
        let content_address = Some(self.text().await?).filter(|address| !address.is_empty());
        let mut signatures = Vec::new();
        for _ in 0..self.length().await? {
            let text = self.text().await?;
            let (key, base64) = text.split_once(':').ok_or_else(|| odd("a signature names no key"))?;
            signatures.push(PathSignature { key: key.to_owned(), base64: base64.to_owned() });
        }
        Ok(Some(PathInfo {
            path: store_path(&path)?,
            nar_hash,
            nar_size,
            download_size: None,
            references,
            signatures,
            content_address,
            ultimate: false,
        }))
    }

    async fn paths(&mut self) -> Result<Vec<StorePath>> {
        let mut paths = Vec::new();
        for _ in 0..self.length().await? {
            paths.push(store_path(&self.text().await?)?);
        }
        Ok(paths)
    }

    async fn length(&mut self) -> Result<u64> {
        Some(self.0.read_u64_le().await?)
            .filter(|length| *length <= ELEMENTS_MAX)
            .ok_or_else(|| odd("a list is too long"))
    }

    async fn text(&mut self) -> Result<String> {
        let bytes = self.0.read_u64_le().await?;
        if bytes > TEXT_BYTES_MAX {
            return Err(odd("a text is too long"));
        }
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut text = vec![0; bytes.next_multiple_of(8)];
        self.0.read_exact(&mut text).await?;
        if text.drain(bytes..).any(|byte| byte != 0) {
            return Err(odd("a text is not padded with zeros"));
        }
        String::from_utf8(text).map_err(|_| odd("a text is not UTF-8"))
    }
}

fn store_path(text: &str) -> Result<StorePath> {
    text.parse().map_err(|_| odd("a name is not a store path"))
}

fn odd(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// Reads what a store may have answered, for those who look for answers that are too strange.
pub fn read_as_any(heard: &[u8]) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let Ok(system) = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a".parse() else { return };
    let _ = runtime.block_on(closure(heard, tokio::io::sink(), &system, &mut |_| {}));
}

#[cfg(test)]
mod tests;
