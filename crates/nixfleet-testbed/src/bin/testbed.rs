//! `testbed`: images, hosts and systems of the testbed by hand.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's results and conversation")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nixfleet_testbed::{APT_PACKAGES, Flavour, Host, Image, Machine, System, Vm};

const USAGE: &str = "usage: testbed packages               list the Debian packages that hosts need
       testbed prepare [FLAVOUR]      make the images that are missing
       testbed sweep                  remove what dead processes left behind
       testbed systems [FLAVOUR]      list the systems, with their store paths if FLAVOUR is given
       testbed shell FLAVOUR          boot a host and give a shell in it
       testbed run FLAVOUR -- CMD...  boot a host, run a command in it, remove it
       testbed vm FLAVOUR -- CMD...   the same in a virtual machine, without a terminal
FLAVOUR is trixie (Nix 2.26, systemd 257) or bookworm (Nix 2.8, systemd 252)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match command(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn command(words: &[&str]) -> Result<ExitCode> {
    match words {
        ["packages"] => println!("{}", APT_PACKAGES.join("\n")),
        ["prepare"] => {
            Flavour::ALL.iter().try_for_each(|flavour| prepare(*flavour))?;
            nixfleet_testbed::prepare_vm(Flavour::Trixie, &mut |line| eprintln!("{line}"))?;
        }
        ["prepare", name] => prepare(flavour(name)?)?,
        ["sweep"] => sweep()?,
        ["systems"] => systems(|system| system.about().to_owned()),
        ["systems", name] => {
            let image = Image::get(flavour(name)?)?;
            systems(|system| image.system(system).to_owned());
        }
        ["shell", name] => {
            // No login shell: Debian's profile would take the system's own programs out of the path.
            let term = format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned()));
            return run(flavour(name)?, &["/usr/bin/env", &term, "/bin/bash"]);
        }
        ["run", name, "--", argv @ ..] if !argv.is_empty() => return run(flavour(name)?, argv),
        ["vm", name, "--", argv @ ..] if !argv.is_empty() => return run_vm(flavour(name)?, argv),
        _ => {
            eprintln!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn systems(what: impl Fn(System) -> String) {
    for system in System::ALL {
        println!("{:28} {}", system.name(), what(*system));
    }
}

fn flavour(name: &str) -> Result<Flavour> {
    Flavour::from_name(name).with_context(|| format!("no flavour `{name}`; there are trixie and bookworm"))
}

fn prepare(flavour: Flavour) -> Result<()> {
    nixfleet_testbed::prepare(flavour, &mut |line| eprintln!("{line}"))?;
    Ok(())
}

fn sweep() -> Result<()> {
    let swept = nixfleet_testbed::sweep()?;
    swept.removed.iter().for_each(|name| println!("removed {name}"));
    eprintln!("{} removed, {} in use", swept.removed.len(), swept.kept.len());
    Ok(())
}

fn run(flavour: Flavour, argv: &[&str]) -> Result<ExitCode> {
    let host = Host::boot(flavour)?;
    let code = host.run_interactive(argv)?;
    host.destroy();
    exit_code(code)
}

fn run_vm(flavour: Flavour, argv: &[&str]) -> Result<ExitCode> {
    let vm = Vm::boot(flavour)?;
    let output = vm.run_for(Duration::from_hours(1), argv)?;
    print!("{}", output.stdout);
    eprint!("{}", output.stderr);
    exit_code(output.code)
}

fn exit_code(code: i32) -> Result<ExitCode> {
    let Ok(code) = u8::try_from(code) else { bail!("ended with {code}") };
    Ok(ExitCode::from(code))
}
