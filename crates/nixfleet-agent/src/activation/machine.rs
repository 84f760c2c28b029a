//! Whether a system is for this kind of machine: asked of Nix, which knows what else the host runs.
//!
//! NixOS writes the kind into the file `system` of its systems. Nix's own `system` is that of its build and its
//! configuration (`armv7l-linux`, `powerpc64le-linux`), and `extra-platforms` names what the machine runs beside it
//! (`i686-linux` on `x86_64`, what an emulator was registered for). What a program of ours was compiled for is a guess at
//! the same, which counts where it fits. A Nix that does not answer is asked again later.

use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::ids::StorePath;
use nixfleet_sys::text;

use super::host::system_text;
use super::realise::not_asked;
use crate::tools::Tools;
use crate::tools::nix::NixSettings;

/// Refuses a system for another kind of machine; one that does not say for which is not refused. `own` is what this
/// program was compiled for.
pub async fn runs_here(tools: &Tools, target: &StorePath, own: &str) -> Result<(), Failure> {
    let said = system_text(target, "system");
    let got = said.trim();
    // Nix takes a tenth of a second to tell its settings, and hardly ever has to.
    if got.is_empty() || got == own {
        return Ok(());
    }
    let settings = tools.nix_settings().await;
    let settings = settings.map_err(|error| not_asked("cannot ask Nix for the kinds of machine", &error))?;
    let kinds = kinds(settings);
    if kinds.iter().any(|kind| kind == got) {
        return Ok(());
    }
    let (got, want) = (text::printable(got), kinds.join(", "));
    Err(Failure::WrongArchitecture { path: target.clone(), got, want })
}

/// All kinds of machine that this host is, its own first.
fn kinds(settings: NixSettings) -> Vec<String> {
    let NixSettings { system, extra_platforms, substituters: _, trusted_keys: _, require_sigs: _ } = settings;
    let mut kinds = vec![system];
    kinds.extend(extra_platforms);
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_what_nix_says() {
        let settings = |system: &str, more: &[&str]| NixSettings {
            system: system.to_owned(),
            extra_platforms: more.iter().map(|kind| (*kind).to_owned()).collect(),
            ..NixSettings::default()
        };
        assert_eq!(kinds(settings("armv7l-linux", &["armv6l-linux"])), ["armv7l-linux", "armv6l-linux"]);
        assert_eq!(kinds(settings("loongarch64-linux", &[])), ["loongarch64-linux"]);
        assert!(kinds(settings("x86_64-linux", &["i686-linux"])).contains(&"i686-linux".to_owned()));
    }
}
