//! The cache against facts/nix.md: what Nix says to each damage, on both versions.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nixfleet_testbed::{Damage, Fault, Flavour, Host, Output, System};

use crate::needs_hosts;

fn realise(host: &Host, path: &str) -> Result<Output> {
    host.run(&["nix-store", "--realise", path])
}

#[test]
fn every_damage_is_refused_and_every_repair_is_taken() -> Result<()> {
    needs_hosts!();
    for flavour in Flavour::ALL {
        let host = Host::boot(*flavour)?;
        let path = host.system(System::Good);
        // A good signature is all that Nix asks for.
        for damage in Damage::ALL.iter().filter(|damage| **damage != Damage::OtherContents) {
            host.cache()?.damage(path, *damage)?;
            // What Nix remembers of the cache must not decide.
            host.sh("rm -rf /root/.cache/nix")?;
            let refused = realise(&host, path)?;
            ensure!(refused.code == 1, "{flavour:?} {damage:?}: {refused}");
            let untrusted = refused.stderr.contains("signed by any of the keys");
            let of_trust = matches!(
                damage,
                Damage::Unsigned
                    | Damage::OtherKey
                    | Damage::Impostor
                    | Damage::AlteredNarHash
                    | Damage::AlteredReferences
            );
            ensure!(untrusted == of_trust, "{flavour:?} {damage:?}: {refused}");
            // What an archive that went wrong leaves on the disk is not a valid path.
            ensure!(!host.run(&["nix-store", "--check-validity", path])?.ok(), "{flavour:?} {damage:?}");
            host.cache()?.repair(path)?;
        }
        host.sh("rm -rf /root/.cache/nix")?;
        realise(&host, path)?.success()?;
    }
    Ok(())
}

#[test]
fn other_contents_that_the_trusted_key_signed_are_taken_by_nix() -> Result<()> {
    needs_hosts!();
    for flavour in Flavour::ALL {
        let host = Host::boot(*flavour)?;
        let path = host.system(System::Good);
        host.cache()?.damage(path, Damage::OtherContents)?;
        realise(&host, path)?.success()?;
        ensure!(host.read_file(&format!("{path}/activate"))?.contains("/var/log/stolen"), "{flavour:?}");
        host.run(&["nix-store", "--verify-path", path])?.success()?;
    }
    Ok(())
}

#[test]
fn a_path_imported_unsigned_is_there_and_has_no_signature() -> Result<()> {
    needs_hosts!();
    for flavour in Flavour::ALL {
        let host = Host::boot(*flavour)?;
        let path = host.system(System::Good);
        host.import_unsigned(path)?;
        ensure!(realise(&host, path)?.ok(), "Nix does not check what is there");
        let key = host.image().public_key()?;
        let verify = |path: &str| {
            let nix = ["nix", "--extra-experimental-features", "nix-command", "store", "verify"];
            let options = ["-r", "--no-contents", "--sigs-needed", "1", "--trusted-public-keys", &key, path];
            host.run(&[&nix[..], &options[..]].concat())
        };
        let untrusted = verify(path)?;
        ensure!(untrusted.code == 2 && untrusted.stderr.contains("is untrusted"), "{untrusted}");
        let trusted = verify(host.system(System::Base))?;
        ensure!(trusted.code == 0, "{trusted}");
    }
    Ok(())
}

#[test]
fn a_cache_that_is_down_fails_and_comes_back() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    let path = host.system(System::Good);
    host.cache()?.down()?;
    ensure!(realise(&host, path)?.code == 1);
    host.cache()?.up()?;
    host.sh("rm -rf /root/.cache/nix")?;
    realise(&host, path)?.success()?;
    Ok(())
}

#[test]
fn a_faulty_server_stalls_trickles_cuts_and_never_ends() -> Result<()> {
    needs_hosts!();
    let host = Host::builder(Flavour::Trixie).disk_limit(300 << 20).boot()?;
    let path = host.system(System::Good);
    let brief = Duration::from_secs(3);
    for fault in [Fault::Silent, Fault::Stall] {
        host.break_cache(fault)?;
        let stuck = host.run_for(brief, &["nix-store", "--realise", path])?;
        ensure!(stuck.timed_out, "{fault:?}: {stuck}");
    }
    host.break_cache(Fault::Endless)?;
    let endless = host.run_for(Duration::from_secs(40), &["nix-store", "--realise", path])?;
    ensure!(!endless.ok() && !host.exists(path), "{endless}");
    for fault in [Fault::CutShort, Fault::ArchiveStatus(404), Fault::Status(403)] {
        host.break_cache(fault)?;
        let refused = host.run(&["nix-store", "--realise", path])?;
        ensure!(refused.code == 1, "{fault:?}: {refused}");
    }
    host.break_cache(Fault::Slow { bytes_per_second: 500 })?;
    let begun = Instant::now();
    host.sh("rm -rf /root/.cache/nix")?;
    host.fetch(path)?;
    ensure!(begun.elapsed() > Duration::from_secs(1), "500 bytes a second are slow");
    Ok(())
}
