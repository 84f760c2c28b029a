//! What the machine must have, and whether it has it.

use std::path::Path;

/// Debian packages that the testbed needs on the machine itself; `cargo xtask setup` installs them. OpenSSH signs in the
/// tests of the operator's command line, PostgreSQL keeps things in those of the control plane; no host needs either.
pub const APT_PACKAGES: &[&str] = &[
    "mmdebstrap",
    "systemd-container",
    "iproute2",
    "util-linux",
    "coreutils",
    "findutils",
    "e2fsprogs",
    "cpio",
    "kmod",
    "qemu-system-x86",
    "openssh-client",
    "postgresql",
    "procps",
];

/// One program of each package that is used, so that "missing" is about what is there, not about dpkg.
const PROGRAMS: &[(&str, &str)] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("sha256sum", "coreutils"),
    ("find", "findutils"),
    ("mke2fs", "e2fsprogs"),
    ("cpio", "cpio"),
    ("depmod", "kmod"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("ps", "procps"),
];

const FOLDERS: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Packages that are needed for hosts and not there, each with the program that was looked for.
pub fn missing() -> Vec<String> {
    PROGRAMS
        .iter()
        .filter(|(program, _)| !FOLDERS.iter().any(|folder| Path::new(folder).join(program).exists()))
        .map(|(program, package)| format!("{package} (for {program})"))
        .collect()
}

/// `Ok` if hosts can be booted here, else what is lacking and what to do.
///
/// A test that needs hosts and does not get them says what it leaves out, and passes; with `CI=true` it fails.
pub fn available() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("hosts need root (mount and network namespaces, systemd-nspawn)".to_owned());
    }
    // Root in a container that forbids mounts: `cargo xtask test` has tried, and says so.
    if let Ok(why) = std::env::var("NIXFLEET_HOSTS_IMPOSSIBLE") {
        return Err(why);
    }
    let missing = missing();
    if !missing.is_empty() {
        return Err(format!("not installed: {}; `cargo xtask setup` installs them", missing.join(", ")));
    }
    Ok(())
}
