//! Programs in a virtual machine: requests and answers over a port of its own (`assets/vm-console.sh` is the other end).

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::spawn::Output;

/// Bytes that the machine sends of each stream; what comes after is dropped, and what does not fit into its memory
/// (three times as much) is an error of the program that prints it.
pub(super) const STREAM_BYTES_MAX: usize = 16 << 20;
/// How much longer than the program the answer may take: a loaded machine in emulation, and the way of 32 MiB.
const GRACE: Duration = Duration::from_mins(1);

/// The console of one boot.
#[derive(Debug)]
pub(super) struct Console {
    stream: BufReader<UnixStream>,
    last: u64,
}

impl Console {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream), last: 0 }
    }

    /// Runs a program for at most `limit`, whole seconds; then it is killed with its process group.
    pub(super) fn run(&mut self, argv: &[&str], limit: Duration) -> Result<Output> {
        let begun = Instant::now();
        let seconds = limit.as_secs().max(1);
        self.last += 1;
        let words: Vec<u8> = argv.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        let request = [format!("{} {seconds} {}\n", self.last, words.len()).as_bytes(), &words].concat();
        self.stream.get_mut().write_all(&request).context("the virtual machine is down")?;
        let until = begun + limit + GRACE;
        let [id, code, stdout, stderr] = self.head(until)?;
        ensure!(id == self.last, "an answer to another request: {id} in place of {}", self.last);
        let stdout = self.bytes(stdout, until)?;
        let stderr = self.bytes(stderr, until)?;
        let elapsed = begun.elapsed();
        // The killer is killed with its group, so only the time tells.
        let timed_out = code == 137 && elapsed >= Duration::from_secs(seconds);
        Ok(Output::of_machine(argv, i32::try_from(code)?, (&stdout, &stderr), elapsed, timed_out))
    }

    fn head(&mut self, until: Instant) -> Result<[u64; 4]> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            self.allow(until)?;
            match self.stream.read_until(b'\n', &mut line) {
                Ok(0) => bail!("the virtual machine went down"),
                Err(error) if !is_late(&error) => return Err(error).context("the virtual machine went down"),
                // What was read before the time was over stays in the line.
                Ok(_) | Err(_) => {}
            }
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        numbers.try_into().ok().with_context(|| format!("`{}` is no answer of the console", line.trim_end()))
    }

    fn bytes(&mut self, length: u64, until: Instant) -> Result<Vec<u8>> {
        let length = usize::try_from(length)?;
        ensure!(length <= STREAM_BYTES_MAX, "the console sends {length} bytes");
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            self.allow(until)?;
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) => bail!("the virtual machine went down"),
                Ok(n) => filled += n,
                Err(error) if is_late(&error) => {}
                Err(error) => return Err(error).context("the virtual machine went down"),
            }
        }
        Ok(bytes)
    }

    /// The next read ends at `until` at the latest.
    fn allow(&mut self, until: Instant) -> Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("the virtual machine does not answer");
        }
        self.stream.get_ref().set_read_timeout(Some(left)).context("set a limit to reading")
    }
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
