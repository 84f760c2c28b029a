//! Runs a program that is asked and answers, as long as there is something to ask.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, Take};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::running::end_group;
use super::{Cmd, ExecError};

/// How long a program that is not asked any more may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

impl Cmd {
    /// Starts it and has `talk` ask it, until the deadline; what it answers ends at as many bytes as standard output may have.
    /// What it says on standard error is lost: whoever asks knows from the answers whether it went well.
    ///
    /// Its end is not waited for here. It sees that nobody asks any more, and is ended if it stays.
    ///
    /// # Errors
    /// It could not be started, the deadline came, or `talk` failed.
    pub async fn talk<T>(
        self,
        talk: impl AsyncFnOnce(Take<ChildStdout>, ChildStdin) -> std::io::Result<T>,
    ) -> Result<T, ExecError> {
        let line = self.line();
        let start = |source| ExecError::Start { line: line.clone(), source };
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(start)?;
        let (Some(out), Some(input)) = (child.stdout.take(), child.stdin.take()) else {
            return Err(start(std::io::ErrorKind::BrokenPipe.into()));
        };
        let out = out.take(u64::try_from(self.stdout_bytes_max).unwrap_or(u64::MAX));
        let answer = timeout(self.deadline, talk(out, input)).await;
        tokio::spawn(see_it_end(child));
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(ExecError::Lost { line, source }),
            Err(_) => Err(ExecError::Deadline { line, limit: self.deadline, last_words: String::new() }),
        }
    }
}

async fn see_it_end(mut child: Child) {
    if timeout(ENDS_WITHIN, child.wait()).await.is_err() {
        end_group(&mut child).await;
    }
}
