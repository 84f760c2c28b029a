//! A control plane whose clock is wrong by whole hours: `skewed HOURS CONFIG`. For the tests on real hosts.
//!
//! It is the server, with its own way in for another clock (`Server::start_by`). The shipped program has none, and a process
//! cannot be given a clock of its own from outside. It runs until it is killed.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicI64, Ordering};

use nixfleet_control_plane::config::{CONFIG_BYTES_MAX, Config};
use nixfleet_control_plane::say;
use nixfleet_control_plane::server::{Means, Server};
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::{clock, fs};

const MS_OF_AN_HOUR: i64 = 3_600_000;
/// How far the clock is ahead; negative if it is behind.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

fn skewed() -> UnixMs {
    let at = clock::unix_ms().saturating_add_signed(AHEAD_MS.load(Ordering::Relaxed));
    UnixMs::new(at).unwrap_or(UnixMs::MAX)
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (Some(hours), Some(config), None) = (words.next(), words.next(), words.next()) else {
        say::line("usage: skewed HOURS CONFIG");
        return ExitCode::from(2);
    };
    match run(&hours, Path::new(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::error("cannot start", &*error);
            ExitCode::FAILURE
        }
    }
}

fn run(hours: &str, config: &Path) -> Result<(), Box<dyn Error>> {
    let hours: i64 = hours.parse()?;
    AHEAD_MS.store(hours.saturating_mul(MS_OF_AN_HOUR), Ordering::Relaxed);
    let text = String::from_utf8(fs::read_bounded(config, CONFIG_BYTES_MAX)?)?;
    let config = Config::read(&text).map_err(|faults| format!("{faults:?}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (server, _ender) = Server::start_by(&config, Means { clock: skewed, ..Means::default() }).await?;
        say::line(&format!("serving at {}, with a clock that is {hours} hours ahead", server.address()?));
        server.run().await;
        Ok(())
    })
}
