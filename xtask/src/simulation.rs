//! `cargo xtask test --sim`: simulated fleets, seed after seed. Part of every test run; by itself with seeds of one's own.

use anyhow::Result;

use crate::{outside::Run, workspace};

/// How the simulation is run. What is not given is the program's own default, which is what every test run plays.
#[derive(Debug, Default, clap::Args)]
// The group is called after the type by itself, and the verb's own arguments have that name already.
#[group(id = "simulation")]
pub(crate) struct Args {
    /// Run simulated fleets alone
    #[arg(long)]
    pub(crate) sim: bool,
    /// How many hosts a simulated fleet has [default: 200]
    #[arg(long, requires = "sim")]
    hosts: Option<u32>,
    /// How many seeds are run [default: 500]
    #[arg(long, requires = "sim")]
    seeds: Option<u64>,
    /// The first of them [default: 1]
    #[arg(long, requires = "sim")]
    from: Option<u64>,
    /// Run this seed alone
    #[arg(long, requires = "sim", conflicts_with_all = ["seeds", "from", "duration"])]
    seed: Option<u64>,
    /// Put a mistake of the field back, to see which seed finds it
    #[arg(long, value_name = "NAME", requires = "sim")]
    mistake: Option<String>,
    /// Run seeds for so long (`90s`, `30m`, `8h`), however many that are
    #[arg(long = "for", value_name = "DURATION", requires = "sim", conflicts_with = "seeds", value_parser = secs)]
    duration: Option<u64>,
}

/// Builds the simulation, optimised and with every check on, and runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    Run::cargo()
        .args(["build", "--locked", "--profile", "sim", "-p", "nixfleet-sim", "--bin", "nixfleet-sim"])
        .go()?;
    let program = workspace::target().join("sim/nixfleet-sim");
    // States are copied and dropped all the time: with room for them, the allocator takes a tenth less of the run.
    let run = Run::new(program).env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=2000");
    arguments(args).into_iter().fold(run, Run::arg).go()
}

fn arguments(args: &Args) -> Vec<String> {
    let Args { sim: _, hosts, seeds, from, seed, mistake, duration } = args;
    let hosts = hosts.map(u64::from);
    let numbers = [
        ("--hosts", &hosts),
        ("--seeds", seeds),
        ("--from", from),
        ("--seed", seed),
        ("--for-secs", duration),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.map(|value| [name.to_owned(), value.to_string()]))
    .flatten();
    let mistake = mistake.iter().flat_map(|name| ["--mistake".to_owned(), name.clone()]);
    numbers.chain(mistake).collect()
}

fn secs(text: &str) -> Result<u64, String> {
    let refused = || format!("`{text}` is no duration: give a whole number with s, m or h, such as 30m");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(refused)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(refused()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <crate::Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        assert_eq!(["90s", "30m", "8h"].map(secs), [Ok(90), Ok(1_800), Ok(28_800)]);
        for bad in ["", "s", "90", "-1s", "1d", "1é", "99999999999999999999s", "18446744073709551615h"] {
            assert!(secs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_was_given_is_passed_on() {
        assert_eq!(arguments(&Args::default()), Vec::<String>::new());
        let args = Args { sim: true, hosts: Some(5), seed: Some(7), ..Args::default() };
        assert_eq!(arguments(&args), ["--hosts", "5", "--seed", "7"]);
    }
}
