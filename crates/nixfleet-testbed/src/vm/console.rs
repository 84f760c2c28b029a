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
///
/// An answer that came too late is still on its way when the next request is made: it is read and dropped first.
#[derive(Debug)]
pub(super) struct Console {
    stream: BufReader<UnixStream>,
    /// The number of the newest request.
    last: u64,
    /// What has arrived of the line that begins the next answer.
    head: Vec<u8>,
    /// Bytes that are still to come of an answer whose head was read.
    body: u64,
}

impl Console {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream), last: 0, head: Vec::new(), body: 0 }
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
        let (code, stdout, stderr) = loop {
            self.drop_body(until)?;
            let [id, code, stdout, stderr] = self.head(until)?;
            self.body = stdout.saturating_add(stderr);
            if id == self.last {
                break (code, stdout, stderr);
            }
        };
        let stdout = self.bytes(stdout, until)?;
        let stderr = self.bytes(stderr, until)?;
        let elapsed = begun.elapsed();
        // The killer is killed with its group, so only the time tells.
        let timed_out = code == 137 && elapsed >= Duration::from_secs(seconds);
        Ok(Output::of_machine(argv, i32::try_from(code)?, (&stdout, &stderr), elapsed, timed_out))
    }

    fn head(&mut self, until: Instant) -> Result<[u64; 4]> {
        while !self.head.ends_with(b"\n") {
            self.allow(until)?;
            match self.stream.read_until(b'\n', &mut self.head) {
                Ok(0) => bail!("the virtual machine went down"),
                Err(error) if !is_late(&error) => return Err(error).context("the virtual machine went down"),
                // What was read before the time was over stays in the line.
                Ok(_) | Err(_) => {}
            }
        }
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.head)).into_owned();
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        numbers.try_into().ok().with_context(|| format!("`{}` is no answer of the console", line.trim_end()))
    }

    fn bytes(&mut self, length: u64, until: Instant) -> Result<Vec<u8>> {
        let length = usize::try_from(length)?;
        ensure!(length <= STREAM_BYTES_MAX, "the console sends {length} bytes");
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            filled += self.some(&mut bytes[filled..], until)?;
        }
        Ok(bytes)
    }

    /// What nobody waits for any more.
    fn drop_body(&mut self, until: Instant) -> Result<()> {
        let mut scrap = [0; 4096];
        while self.body > 0 {
            let length = usize::try_from(self.body).unwrap_or(usize::MAX).min(scrap.len());
            self.some(&mut scrap[..length], until)?;
        }
        Ok(())
    }

    /// Reads some bytes of an answer; none if the time is over, which the next call says.
    fn some(&mut self, into: &mut [u8], until: Instant) -> Result<usize> {
        self.allow(until)?;
        let n = match self.stream.read(into) {
            Ok(0) => bail!("the virtual machine went down"),
            Ok(n) => n,
            Err(error) if is_late(&error) => 0,
            Err(error) => return Err(error).context("the virtual machine went down"),
        };
        self.body = self.body.saturating_sub(n as u64);
        Ok(n)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_came_too_late_is_not_taken_for_the_next_one() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let mut console = Console::new(ours);
        console.last = 6;
        // The rest of one late answer, a whole other one, and ours.
        console.body = 3;
        let answers = [&b"xyz"[..], b"6 0 4 1\nlate!", b"7 3 2 5\nhuhello"].concat();
        let writer = std::thread::spawn(move || {
            for piece in answers.chunks(5) {
                theirs.write_all(piece).expect("written");
            }
            theirs
        });
        let output = console.run(&["anything"], Duration::from_secs(1)).expect("an answer");
        drop(writer.join().expect("it ends"));
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (3, "hu", "hello"));
    }
}
