//! The one module of xtask that starts programs and writes files.
//!
//! The crates go through `nixfleet_sys` for both. xtask may not depend on them: it builds them, and its checks
//! must work while they do not compile. Nothing here has a deadline of its own: what waits (tests, hosts)
//! bounds itself, and a person at a terminal has Ctrl-C, which reaches the whole foreground process group.

#![expect(
    clippy::disallowed_methods,
    reason = "xtask cannot use nixfleet_sys: it has to run while the crates do not compile"
)]

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::say;

/// A program to run: arguments are a vector all the way, nothing goes through a shell.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    line: String,
}

impl Run {
    /// Starts describing a run of `program`, in the checkout's root.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let line = program.as_ref().to_string_lossy().into_owned();
        let mut command = Command::new(program);
        // `cargo run` describes xtask in these. A build script that watches one of them would be built again
        // each time we and the developer take turns.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix))
            {
                command.env_remove(name);
            }
        }
        Self { command, line }.dir(&crate::workspace::root())
    }

    /// `cargo`, the one that started us.
    pub(crate) fn cargo() -> Self {
        let mut run = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        "cargo".clone_into(&mut run.line);
        run
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.line.push(' ');
        self.line.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    /// An argument too long to be read, such as a script; the printed line has `…` for it.
    pub(crate) fn unprinted_arg(mut self, arg: &str) -> Self {
        self.line.push_str(" …");
        self.command.arg(arg);
        self
    }

    pub(crate) fn args(self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn env_clear(mut self) -> Self {
        self.command.env_clear();
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Runs it on our terminal.
    ///
    /// # Errors
    /// The program could not be started, or did not end with 0.
    pub(crate) fn go(mut self) -> Result<()> {
        say::line(&format!("    $ {}", self.line));
        let status = self.command.status().with_context(|| format!("cannot run `{}`", self.line))?;
        if !status.success() {
            bail!("`{}` ended with {status}", self.line);
        }
        Ok(())
    }

    /// Its stdout when it ended with 0; stderr goes to our terminal.
    pub(crate) fn stdout(self) -> Result<String> {
        let line = self.line.clone();
        let (ok, text) = self.finish(Stdio::inherit())?;
        if !ok {
            bail!("`{line}` failed; what it printed:\n{text}");
        }
        Ok(text)
    }

    /// Its stdout, however it ended.
    pub(crate) fn stdout_whatever(self) -> Result<String> {
        Ok(self.finish(Stdio::null())?.1)
    }

    /// Whether it can be started and ends with 0; prints nothing.
    pub(crate) fn works(self) -> bool {
        self.finish(Stdio::null()).is_ok_and(|(ok, _)| ok)
    }

    fn finish(mut self, stderr: Stdio) -> Result<(bool, String)> {
        let output = self
            .command
            .stdin(Stdio::null())
            .stderr(stderr)
            .output()
            .with_context(|| format!("cannot run `{}`", self.line))?;
        let text = String::from_utf8(output.stdout)
            .with_context(|| format!("`{}` printed something that is not UTF-8", self.line))?;
        Ok((output.status.success(), text))
    }
}

/// Replaces the content of a file of the checkout or of a scratch folder; nothing that must survive a crash.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
