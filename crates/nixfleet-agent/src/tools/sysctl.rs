//! `sysctl` of macOS: which boot this is.
//!
//! `kern.bootsessionuuid` is made anew by the kernel at every boot, as `/proc/sys/kernel/random/boot_id` is on Linux.
//! `kern.boottime` is not used: it moves when the clock is set.

use std::time::Duration;

use nixfleet_core::ids::BootId;
use nixfleet_sys::exec::Cmd;

use super::bare;
use crate::activation::host::BootUnknown;
use nixfleet_core::nix::NotUnderstood;

/// Part of macOS, and nowhere else.
const SYSCTL: &str = "/usr/sbin/sysctl";
/// It reads one value from the kernel.
const LIMIT: Duration = Duration::from_secs(10);

/// `sysctl -n kern.bootsessionuuid`.
pub fn boot_session_command() -> Cmd {
    bare(SYSCTL.as_ref()).args(["-n", "kern.bootsessionuuid"]).deadline(LIMIT)
}

/// The one UUID that it prints.
pub fn parse_boot_session(stdout: &str) -> Result<BootId, NotUnderstood> {
    let text = stdout.trim();
    let groups: Vec<&str> = text.split('-').collect();
    let hex = |group: &&str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    if lengths == [8, 4, 4, 4, 12] && groups.iter().all(hex) {
        Ok(BootId::new(text))
    } else {
        Err(NotUnderstood::new("this is no UUID", text))
    }
}

/// This boot of a Mac.
pub async fn boot_session() -> Result<BootId, BootUnknown> {
    let unknown = |why: String| BootUnknown { why };
    let finished = boot_session_command().run().await.and_then(nixfleet_sys::exec::Finished::success);
    let stdout = finished.map_err(|error| unknown(error.to_string()))?.stdout_text();
    parse_boot_session(&stdout).map_err(|error| unknown(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_for_the_value_alone() {
        assert_eq!(boot_session_command().line(), "/usr/sbin/sysctl -n kern.bootsessionuuid");
    }

    #[test]
    fn a_uuid_is_a_boot_and_everything_else_is_refused() {
        let boot = parse_boot_session("5D1A4F0C-9B0E-4A53-8C43-0C2D3A1B7E99\n").expect("a UUID");
        assert_eq!(boot.as_str(), "5D1A4F0C-9B0E-4A53-8C43-0C2D3A1B7E99");
        for bad in [
            "",
            "\n",
            "sysctl: unknown oid 'kern.bootsessionuuid'",
            "kern.bootsessionuuid: 5D1A4F0C-9B0E-4A53-8C43-0C2D3A1B7E99",
            "5D1A4F0C-9B0E-4A53-8C43-0C2D3A1B7E9G",
            "5D1A4F0C9B0E4A538C430C2D3A1B7E99",
        ] {
            assert!(parse_boot_session(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    #[cfg(not(target_os = "macos"))]
    async fn where_there_is_none_the_boot_is_unknown_and_never_empty() {
        let said = boot_session().await.expect_err("not a Mac").to_string();
        assert!(said.contains("cannot tell this boot from another") && said.contains(SYSCTL), "{said}");
    }
}
