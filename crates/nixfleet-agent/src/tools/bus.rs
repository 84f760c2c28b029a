//! The service manager's own socket: the few questions and orders of an activation, without starting a program.
//!
//! `systemctl` and `systemd-run` use the same socket as root; they cost 15 and 47 ms a call, mostly their own start.
//! It needs no D-Bus daemon, which a switch may be restarting. [`Tools`](super::Tools) asks here first and starts the
//! program when that fails, as long as the request can have had no effect: the programs stay the authority.
//!
//! Each operation has a connection of its own, since a re-exec of the manager drops them all; it has a deadline, and a
//! bound on all that may arrive. Nothing subscribes: to a direct connection the manager sends every signal unasked.

mod transient;
pub mod wire;

use std::io;
use std::path::Path;
use std::time::Duration;

use data_encoding::HEXLOWER;
use nixfleet_sys::{exec, text};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zbus::{DynamicType, OwnedObjectPath, OwnedVariant, Type, Variant};

use super::systemd::TransientUnit;
use super::units::{ActiveState, UnitName, UnitState};
use wire::{Heard, Kind};

/// Where the manager listens; only root may connect.
pub const SOCKET: &str = "/run/systemd/private";

/// From connecting to an answer, and again for the end of a job: as long as a program gets that asks the same. The
/// manager answers within milliseconds, but a daemon-reload of a big host takes some seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// All that one operation may receive, as much as from a program: 10,000 units are listed in 4 MB.
const BYTES_MAX: usize = exec::STDOUT_BYTES_MAX;
/// The answer to our greeting has 37 bytes.
const LINE_BYTES_MAX: u64 = 256;
/// Each connection makes one call.
const SERIAL: u32 = 1;

const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const JOB_REMOVED: (&str, &str) = (MANAGER, "JobRemoved");

/// A unit in a list: name, description, load, active and sub state, followed unit, path; its job by number, type, path.
type Row = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
/// A job that is over: number, path, unit, result.
type Ended = (u32, OwnedObjectPath, String, String);

/// Why the manager did not do or say what was wanted.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// It was not asked: nothing can have happened.
    #[error("the service manager could not be asked: {0}")]
    NotAsked(String),
    /// It refused: nothing has happened.
    #[error("the service manager refused: {0}")]
    Refused(String),
    /// It was asked and no answer came that we understand: what was wanted may have happened.
    #[error("the service manager did not answer: {0}")]
    Unanswered(String),
    /// It took the job, and the job ended otherwise than well.
    #[error("the job of the service manager ended with `{0}`")]
    JobFailed(String),
}

/// All units that are loaded.
pub async fn list_units(socket: &Path) -> Result<Vec<UnitState>, BusError> {
    let rows: Vec<Row> = ask(socket, (MANAGER, "ListUnits"), &()).await?;
    rows.into_iter().map(|row| unit_state(&row.0, row.2, &row.3, row.4)).collect()
}

fn unit_state(name: &str, load: String, active: &str, sub: String) -> Result<UnitState, BusError> {
    let name = name.parse::<UnitName>().map_err(|error| unanswered(&error))?;
    Ok(UnitState { name, load, active: ActiveState::read(active), sub })
}

/// When the service manager started, in microseconds of the monotonic clock.
pub async fn userspace_start(socket: &Path) -> Result<u64, BusError> {
    let wanted = (MANAGER, "UserspaceTimestampMonotonic");
    let value: OwnedVariant = ask(socket, (PROPERTIES, "Get"), &wanted).await?;
    u64::try_from(value).map_err(|error| unanswered(&error))
}

/// Has a unit stopped without waiting for its end; one that is not loaded is refused.
pub async fn stop_soon(socket: &Path, unit: &UnitName) -> Result<(), BusError> {
    let _job: OwnedObjectPath = ask(socket, (MANAGER, "StopUnit"), &(unit.as_str(), "replace")).await?;
    Ok(())
}

/// Starts a service; it has been executed when this returns.
pub async fn start(socket: &Path, unit: &TransientUnit) -> Result<(), BusError> {
    start_transient(socket, unit.name.as_str(), (transient::service(unit), Vec::new())).await
}

/// Arms a timer that starts the service so long after the start of the manager.
pub async fn start_at(socket: &Path, unit: &TransientUnit, since_startup: Duration) -> Result<(), BusError> {
    let service = vec![(unit.name.as_str(), transient::service(unit))];
    let timer = transient::timer(unit, since_startup);
    start_transient(socket, unit.name.timer().as_str(), (timer, service)).await
}

type Properties<'a> = Vec<(&'static str, Variant<'a>)>;

/// The manager answers before the job has run, so its end is waited for on the same connection.
async fn start_transient(
    socket: &Path,
    name: &str,
    (own, beside): (Properties<'_>, Vec<(&str, Properties<'_>)>),
) -> Result<(), BusError> {
    let mut talk = Talk::open(socket).await?;
    // `fail`: a unit of that name must not have a job already.
    let body = (name, "fail", own, beside);
    let job: OwnedObjectPath = in_time(Box::pin(talk.ask((MANAGER, "StartTransientUnit"), &body))).await?;
    match in_time(talk.end_of(&job)).await?.as_str() {
        "done" => Ok(()),
        other => Err(BusError::JobFailed(other.to_owned())),
    }
}

async fn ask<B, A>(socket: &Path, method: (&'static str, &'static str), body: &B) -> Result<A, BusError>
where
    B: Serialize + DynamicType + Sync,
    A: DeserializeOwned + Type,
{
    let mut talk = Talk::open(socket).await?;
    in_time(Box::pin(talk.ask(method, body))).await
}

async fn in_time<A>(answer: impl Future<Output = Result<A, BusError>>) -> Result<A, BusError> {
    timeout(DEADLINE, answer)
        .await
        .unwrap_or_else(|_| Err(BusError::Unanswered("it took too long".to_owned())))
}

/// A connection for one operation. All that arrives is read here in order: nothing is kept for later, so a signal
/// nobody wants cannot hold up the answer behind it.
struct Talk {
    stream: BufStream<UnixStream>,
    bytes_left: usize,
}

impl Talk {
    /// Connects; nothing has been asked yet, however this fails.
    async fn open(socket: &Path) -> Result<Self, BusError> {
        let connected = timeout(DEADLINE, Self::connect(socket)).await;
        connected
            .unwrap_or_else(|elapsed| Err(elapsed.into()))
            .map_err(|error| BusError::NotAsked(error.to_string()))
    }

    /// Says who we are, as the kernel also tells; the answer is a line that begins with `OK`.
    async fn connect(socket: &Path) -> io::Result<Self> {
        let mut stream = BufStream::new(UnixStream::connect(socket).await?);
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hello = format!("\0AUTH EXTERNAL {}\r\nBEGIN\r\n", HEXLOWER.encode(uid.as_bytes()));
        stream.write_all(hello.as_bytes()).await?;
        stream.flush().await?;
        let mut line = Vec::new();
        (&mut stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if line.starts_with(b"OK ") && line.ends_with(b"\r\n") {
            Ok(Self { stream, bytes_left: BYTES_MAX })
        } else {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "it does not accept us"))
        }
    }

    /// Calls a method of the manager and returns its answer.
    async fn ask<B, A>(&mut self, method: (&str, &str), body: &B) -> Result<A, BusError>
    where
        B: Serialize + DynamicType + Sync,
        A: DeserializeOwned + Type,
    {
        let call =
            wire::call(SERIAL, PATH, method, body).map_err(|error| BusError::NotAsked(error.to_string()))?;
        // A message that was sent in part has no effect, but a failure does not say how much was sent.
        self.send(&call).await.map_err(|error| unanswered(&error))?;
        loop {
            let heard = self.next().await?;
            if heard.reply_to != Some(SERIAL) {
                continue;
            }
            return match heard.kind {
                Kind::Return => heard.body().map_err(|error| unanswered(&error)),
                Kind::Error => {
                    let said: String = heard.body().unwrap_or_default();
                    Err(BusError::Refused(text::printable(&format!("{said} ({})", heard.error))))
                }
                Kind::Signal | Kind::Other => Err(unanswered(&"an answer is none")),
            };
        }
    }

    /// Waits for the end of a job and returns its result in the manager's words.
    async fn end_of(&mut self, job: &OwnedObjectPath) -> Result<String, BusError> {
        loop {
            let heard = self.next().await?;
            if heard.kind != Kind::Signal || (heard.interface.as_str(), heard.member.as_str()) != JOB_REMOVED
            {
                continue;
            }
            let ended: Ended = heard.body().map_err(|error| unanswered(&error))?;
            if ended.1 == *job {
                return Ok(ended.3);
            }
        }
    }

    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message).await?;
        self.stream.flush().await
    }

    /// The next message, whatever it is.
    async fn next(&mut self) -> Result<Heard, BusError> {
        let mut beginning = [0; wire::BEGINNING];
        self.stream.read_exact(&mut beginning).await.map_err(|error| unanswered(&error))?;
        let length = wire::length(&beginning).map_err(|error| unanswered(&error))?;
        self.bytes_left =
            self.bytes_left.checked_sub(length).ok_or_else(|| unanswered(&"it says too much"))?;
        let mut message = vec![0; length];
        message[..wire::BEGINNING].copy_from_slice(&beginning);
        let rest = self.stream.read_exact(&mut message[wire::BEGINNING..]).await;
        rest.map_err(|error| unanswered(&error))?;
        wire::read(&message).map_err(|error| unanswered(&error))
    }
}

/// Reads a message as each of the answers that are ever waited for: for the fuzzer and its corpus.
pub fn read_as_any(bytes: &[u8]) {
    if let Some(beginning) = bytes.first_chunk() {
        drop(wire::length(beginning));
    }
    if let Ok(heard) = wire::read(bytes) {
        drop(heard.body::<Vec<Row>>());
        drop(heard.body::<Ended>());
        drop(heard.body::<OwnedObjectPath>());
        drop(heard.body::<OwnedVariant>());
        drop(heard.body::<String>());
    }
}

fn unanswered(why: &impl std::fmt::Display) -> BusError {
    BusError::Unanswered(why.to_string())
}

#[cfg(test)]
mod tests;
