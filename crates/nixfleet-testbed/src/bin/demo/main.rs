//! `cargo xtask demo`: one good update and four bad ones on real hosts, then a fleet without a server and one with a control
//! plane, with what happened and why.
//!
//! Each act starts a fresh host, shows the agent's own words, and checks the host itself. An act that does not end as
//! promised ends the demo with exit code 1. Hosts go with the process, however it ends.
#![allow(clippy::print_stdout, reason = "a demo is there to be read")]

mod led;
mod serverless;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nixfleet_testbed::{Damage, Flavour, Host, Net, Output, System, available};

const AGENT: &str = "/run/current-system/sw/bin/nixfleet-agent";
/// Longer than any act: what takes longer has failed.
const LIMIT: Duration = Duration::from_mins(2);

/// One scene: a fresh host, what is done to it, and what must be true of it afterwards.
type Act = fn() -> Result<()>;

fn main() -> ExitCode {
    let started = Instant::now();
    if let Err(why) = available() {
        println!("The demo needs hosts, and they cannot run here: {why}");
        return ExitCode::from(1);
    }
    let acts: [(&str, Act); 7] = [
        ("A good update: fetched, verified, tried, confirmed, made the boot default", good),
        ("An update whose service does not answer as it should: reverted by itself", bad_probe),
        (
            "An update that cuts the network, and whose agent is killed: the deadman brings the host back",
            deadman,
        ),
        ("A tampered cache: refused as a trust failure, nothing changed", tampered),
        ("Another kernel: written to the boot loader, finished after the reboot", kernel),
        ("Three hosts, signed releases and no server: a good one, a bad one, a fix", serverless::serverless),
        ("Three hosts and a control plane: a rollout, one that stops by itself, a fix", led::led),
    ];
    for (number, (title, act)) in acts.iter().enumerate() {
        println!("\n== {}. {title}", number + 1);
        if let Err(error) = act() {
            println!("   NOT AS PROMISED: {error:#}");
            return ExitCode::from(1);
        }
    }
    println!(
        "\nAll seven ended as promised, in {:.0} s; nothing is left running.",
        started.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}

/// Runs the agent and shows its words.
fn agent(host: &Host, args: &[&str]) -> Result<Output> {
    println!("   $ nixfleet-agent {}", args.join(" "));
    let output = host.run_for(LIMIT, &[&[AGENT], args].concat())?;
    show(&output.stderr);
    println!("   exit code {}", output.code);
    Ok(output)
}

fn show(text: &str) {
    text.lines().for_each(|line| println!("   | {line}"));
}

/// Checks where the host stands, and says it.
fn stands(host: &Host, running: System, boots: System) -> Result<()> {
    ensure!(
        host.current_system().as_deref() == Some(host.system(running)),
        "the host should run {}",
        running.name()
    );
    ensure!(
        host.boot_default().as_deref() == Some(host.system(boots)),
        "the host should boot {}",
        boots.name()
    );
    ensure!(
        host.profile_system().as_deref() == Some(host.system(boots)),
        "the profile should be {}",
        boots.name()
    );
    println!("   checked on the host: runs `{}`, boots `{}`, profile agrees", running.name(), boots.name());
    Ok(())
}

fn exits(output: &Output, code: i32) -> Result<()> {
    ensure!(output.code == code, "expected exit code {code}, got {}", output.code);
    Ok(())
}

fn good() -> Result<()> {
    let host = Host::boot(Flavour::Trixie)?;
    let path = host.system(System::Good).to_owned();
    exits(&agent(&host, &["activate", &path])?, 0)?;
    stands(&host, System::Good, System::Good)
}

fn bad_probe() -> Result<()> {
    let host = Host::boot(Flavour::Trixie)?;
    let path = host.system(System::Probe404).to_owned();
    let probe = ["--probe", "http://127.0.0.1:8000/health", "--confirm-within", "6s"];
    exits(&agent(&host, &[&["activate", path.as_str()], probe.as_slice()].concat())?, 5)?;
    println!("   why: the new web service answers 404, so the trial was never confirmed");
    stands(&host, System::Base, System::Base)
}

fn deadman() -> Result<()> {
    let net = Net::new(Flavour::Trixie)?;
    let host = Host::builder(Flavour::Trixie).net(&net).boot()?;
    let path = host.system(System::BreaksNetwork).to_owned();
    println!("   $ systemd-run --unit activation nixfleet-agent activate --confirm-within 8s {path}");
    host.run(&[
        "systemd-run",
        "-q",
        "--unit",
        "activation",
        AGENT,
        "activate",
        "--confirm-within",
        "8s",
        &path,
    ])?
    .success()?;
    host.wait_until("the flip", LIMIT, |host| host.current_system().as_deref() == Some(&path))?;
    let confirming = |host: &Host| {
        host.read_file("/var/lib/nixfleet/journal.jsonl")
            .is_ok_and(|journal| journal.contains("\"confirming\""))
    };
    host.wait_until("the switch is over", LIMIT, confirming)?;
    host.run(&["systemctl", "stop", "nixfleet-agent.service"])?;
    host.run(&["systemctl", "kill", "--signal=KILL", "activation.service"])?;
    println!("   the host runs the new system, its links are down, and every agent process is dead");
    let over = |host: &Host| {
        let history = host.run(&[AGENT, "history"]).map(|output| output.stdout).unwrap_or_default();
        history.contains("not confirmed within 8 s")
    };
    host.wait_until("the deadman", LIMIT, over)?;
    show(&host.run(&[AGENT, "history"])?.stdout);
    println!(
        "   why: nobody confirmed within 8 s, so a timer of systemd ran the previous system's own agent"
    );
    stands(&host, System::Base, System::Base)
}

fn tampered() -> Result<()> {
    let host = Host::boot(Flavour::Trixie)?;
    let path = host.system(System::Good).to_owned();
    host.cache()?.damage(&path, Damage::Impostor)?;
    println!("   the cache now serves a signature under the trusted key's name, by another key");
    exits(&agent(&host, &["activate", &path])?, 1)?;
    stands(&host, System::Base, System::Base)
}

fn kernel() -> Result<()> {
    let host = Host::boot(Flavour::Trixie)?;
    let path = host.system(System::OtherKernel).to_owned();
    exits(&agent(&host, &["activate", &path])?, 6)?;
    stands(&host, System::Base, System::OtherKernel)?;
    println!("   $ reboot");
    host.reboot()?;
    let over = |host: &Host| {
        let history = host.run(&[AGENT, "history"]).map(|output| output.stdout).unwrap_or_default();
        history.contains("converged")
    };
    host.wait_until("the agent finishes it", LIMIT, over)?;
    show(&host.run(&[AGENT, "status"])?.stdout);
    stands(&host, System::OtherKernel, System::OtherKernel)
}
