//! `cargo xtask ci`: what CI runs. The list has one home, `.ci/run`.

use anyhow::Result;

use crate::outside::Run;

pub(crate) fn run() -> Result<()> {
    Run::new("bash").arg(".ci/run").env("CI", "true").go()
}
