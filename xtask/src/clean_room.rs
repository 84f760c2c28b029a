//! `cargo xtask clean-room`: runs a command in a fresh Debian bookworm that holds this checkout and the Rust
//! toolchain, and nothing else, so that an installation step missing from `setup` is found here.
//!
//! The room is a folder made by mmdebstrap (kept as an archive between runs) in which a command gets a mount
//! and a process namespace of its own and the folder as its root by `pivot_root`. Not systemd-nspawn: the tests
//! start nspawn inside, which wants the machine's own cgroups and capabilities. Not `chroot`: tools that notice
//! one behave differently. When the command ends, for whatever reason, the kernel ends every process and mount
//! of the room with it.
//!
//! Taken from the machine: committed files, network settings (resolver, hosts, proxy, certificates), the Rust
//! toolchain (read-only) and the archive of downloaded crates. Never taken: credentials of any kind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    hosts::{self, Hosts},
    outside::{self, Run},
    report::Report,
    say, setup, workspace,
};

/// What a fresh machine has next to its toolchain: a linker, git and certificates. Nothing for the test hosts.
const PACKAGES: &str = "ca-certificates,gcc,git,libc6-dev";
/// The release of the fresh machine.
const SUITE: &str = "bookworm";
/// Where the checkout is, in the room.
const CHECKOUT: &str = "home/checkout";
/// Environment variables that describe the network and not the developer.
const NETWORK_VARIABLES: [&str; 7] =
    ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"];
/// Settings of apt that describe the network and not the machine's packages.
const APT_SETTINGS: [&str; 6] = [
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::Retries ",
    "Acquire::ForceIPv4 ",
    "Acquire::Check-Valid-Until ",
    "Acquire::Check-Date ",
];

/// Begins the name of a room in use; the process id of its xtask follows.
const ROOM: &str = "room-";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep the room afterwards and say where it is
    #[arg(long)]
    keep: bool,
    /// Make the Debian root anew, although there is one from an earlier run
    #[arg(long)]
    fresh: bool,
    /// Where rooms are made; needs some 15 GB [default: /var/cache/nixfleet-clean-room]
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/cache/nixfleet-clean-room",
        hide_default_value = true
    )]
    rooms: PathBuf,
    /// The command to run in the checkout
    #[arg(last = true, default_values_t = ["bash".to_owned(), ".ci/run".to_owned()], value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Hosts::Impossible(why) = hosts::look() {
        bail!("a clean room cannot be made here: {why}");
    }
    let mut report = Report::default();
    if !Run::new("mmdebstrap").arg("--version").works() {
        say::line("installing with apt, to make a Debian root: mmdebstrap");
        report.step("install packages", || setup::install(&["mmdebstrap".to_owned()]))?;
    }
    fs::create_dir_all(&args.rooms).with_context(|| format!("cannot make {}", args.rooms.display()))?;
    let settings = args.rooms.join("apt-settings");
    outside::write(&settings, &apt_settings(&Run::new("apt-config").arg("dump").stdout()?))?;

    let archive = args.rooms.join(format!("{SUITE}-{}.tar", PACKAGES.replace(',', "+")));
    if args.fresh || !archive.exists() {
        report.step("make a Debian root", || make_archive(&archive, &settings))?;
    }
    for room in abandoned(&args.rooms)? {
        report.step("clear a room that an earlier run left", || clear(&room))?;
    }
    let room = args.rooms.join(format!("{ROOM}{}", std::process::id()));
    let outcome = report
        .step("furnish the room", || furnish(&room, &archive, &settings))
        .and_then(|()| report.step("run the command in the room", || enter(&room, &args.command)));
    if args.keep {
        let kept = args.rooms.join(format!("kept-{}", std::process::id()));
        fs::rename(&room, &kept).with_context(|| format!("cannot make {}", kept.display()))?;
        say::line(&format!("the room is kept: {}", kept.display()));
    } else {
        report.step("clear the room", || clear(&room))?;
    }
    report.close();
    outcome
}

/// Rooms whose xtask is gone.
fn abandoned(rooms: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(rooms).with_context(|| format!("cannot list {}", rooms.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", rooms.display()))?.path();
        let owner = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(ROOM));
        if owner.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            found.push(path);
        }
    }
    Ok(found)
}

fn make_archive(archive: &Path, settings: &Path) -> Result<()> {
    let unfinished = archive.with_extension("unfinished.tar");
    Run::new("mmdebstrap")
        .args(["--variant=minbase", "--format=tar"])
        .arg(format!("--include={PACKAGES}"))
        .arg(format!("--aptopt={}", settings.display()))
        .args([SUITE.as_ref(), unfinished.as_os_str()])
        .go()?;
    fs::rename(&unfinished, archive).with_context(|| format!("cannot make {}", archive.display()))
}

fn furnish(room: &Path, archive: &Path, settings: &Path) -> Result<()> {
    fs::create_dir(room).with_context(|| format!("cannot make {}", room.display()))?;
    Run::new("tar")
        .args(["--extract", "--numeric-owner", "--xattrs", "--directory"])
        .arg(room)
        .arg("--file")
        .arg(archive)
        .go()?;
    let copy = |from: &Path, to: &Path| -> Result<()> {
        fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
    };
    // As in the images that containers are made of: packages are installed, their services not started.
    outside::write(&room.join("usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 101\n")?;
    Run::new("chmod").arg("0755").arg(room.join("usr/sbin/policy-rc.d")).go()?;
    copy(settings, &room.join("etc/apt/apt.conf.d/99network"))?;
    for file in ["/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"] {
        // A link in the room (resolv.conf, at times) would lead out of it.
        let to = room.join(file.trim_start_matches('/'));
        drop(fs::remove_file(&to));
        if Path::new(file).exists() {
            copy(Path::new(file), &to)?;
        }
    }
    for dir in ["room/old", "room/rustup", "room/cargo/registry", "room/cargo/bin", "home"] {
        fs::create_dir_all(room.join(dir)).with_context(|| format!("cannot make {dir} in the room"))?;
    }
    let cargo = home("CARGO_HOME", ".cargo")?;
    for file in ["config.toml", "config"] {
        if cargo.join(file).exists() {
            copy(&cargo.join(file), &room.join("room/cargo").join(file))?;
        }
    }
    for dir in ["bin", "registry/index", "registry/cache"] {
        if cargo.join(dir).exists() {
            let to = room.join("room/cargo").join(dir);
            Run::new("cp").args(["--archive", "--no-target-directory"]).arg(cargo.join(dir)).arg(to).go()?;
        }
    }
    // Wherever it was installed, it belongs to the toolchain.
    let nextest = Run::new("sh").args(["-c", "command -v cargo-nextest || true"]).stdout()?;
    if !nextest.trim().is_empty() {
        copy(Path::new(nextest.trim()), &room.join("room/cargo/bin/cargo-nextest"))?;
    }
    say::line("    only what is committed goes into the room");
    Run::new("git")
        .args(["clone", "--quiet", "--no-local"])
        .arg(workspace::root())
        .arg(room.join(CHECKOUT))
        .go()
}

/// Runs a command in the room; returns when it has ended and nothing of it is left.
fn enter(room: &Path, command: &[String]) -> Result<()> {
    let variables = NETWORK_VARIABLES.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    variables
        .fold(
            Run::new("/usr/bin/setpriv")
                .env_clear()
                .env("PATH", "/room/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
                .env("HOME", "/root")
                .env("LANG", "C.UTF-8")
                .env("CARGO_HOME", "/room/cargo")
                .env("RUSTUP_HOME", "/room/rustup")
                .env("TERM", std::env::var_os("TERM").unwrap_or_else(|| "dumb".into())),
            |run, (name, value)| run.env(name, value),
        )
        // Should we be killed, so is `unshare`, and with it the room.
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"])
        .args(["/bin/sh", "-c"])
        .unprinted_arg(ENTER)
        .arg("enter")
        .arg(room)
        .arg(home("RUSTUP_HOME", ".rustup")?)
        .arg(CHECKOUT)
        .args(command)
        .go()
}

/// Mounts a machine's usual things, makes the room the root, forgets the old root, and runs the command.
/// It is process 1 of the room, to which the kernel delivers only signals that are trapped: without the trap,
/// Ctrl-C would not end it.
///
/// Arguments: room, rustup folder, checkout in the room, command.
const ENTER: &str = r#"
set -eu
room=$1 rustup=$2 checkout=$3
shift 3
mount --bind "$room" "$room"
cd "$room"
mount --bind "$rustup" room/rustup
mount -o remount,bind,ro room/rustup
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
pivot_root . room/old
cd /
umount -l /room/old
cd "/$checkout"
trap 'exit 130' INT TERM HUP
"$@"
"#;

fn clear(room: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mount table")?;
    if let Some(mount) = mount_inside(&mounts, room) {
        bail!("{mount} is still mounted, so {} is not removed", room.display());
    }
    Run::new("rm").args(["--recursive", "--force", "--one-file-system", "--"]).arg(room).go()
}

fn mount_inside<'a>(mounts: &'a str, room: &Path) -> Option<&'a str> {
    mounts.lines().filter_map(|line| line.split(' ').nth(1)).find(|point| Path::new(point).starts_with(room))
}

fn home(variable: &str, default: &str) -> Result<PathBuf> {
    match std::env::var_os(variable) {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => Ok(Path::new(&std::env::var_os("HOME").context("HOME is not set")?).join(default)),
    }
}

fn apt_settings(dump: &str) -> String {
    dump.lines()
        .filter(|line| APT_SETTINGS.iter().any(|key| line.starts_with(key)) && !line.ends_with("\"\";"))
        .flat_map(|line| [line, "\n"])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_settings_of_apt_are_taken_along() {
        let dump = "Dir::Etc \"etc/apt\";\nAcquire::http \"\";\nAcquire::http::Proxy \"http://proxy.example:3128\";\n\
            Acquire::Check-Date \"false\";\nAcquire::IndexTargets::deb::DEP-11 \"\";\n\
            DPkg::Post-Invoke:: \"something\";\n";
        assert_eq!(
            apt_settings(dump),
            "Acquire::http::Proxy \"http://proxy.example:3128\";\nAcquire::Check-Date \"false\";\n"
        );
    }

    #[test]
    fn a_mount_in_the_room_is_seen_and_one_beside_it_is_not() {
        let mounts = "proc /proc proc rw 0 0\noverlay /rooms/room-12/x overlay rw 0 0\n";
        assert_eq!(mount_inside(mounts, Path::new("/rooms/room-12")), Some("/rooms/room-12/x"));
        assert_eq!(mount_inside(mounts, Path::new("/rooms/room-1")), None);
    }
}
