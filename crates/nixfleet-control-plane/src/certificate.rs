//! A certificate for a server that nobody else vouches for: agents and people pin its key. When a certificate ends. And the files
//! of one, looked at again and again, since whoever renews them does not restart us.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::fs::{self, FsError};
use nixfleet_sys::pin::Pin;
use nixfleet_sys::text::chain;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use tokio::time::sleep;

use crate::config::Config;
use crate::say;
use crate::tls::Certificate;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Puts what the files have in the place of the certificate when it is another. One that is of no use is said, and the old one
/// stays. Goes on for ever; to be aborted at the end of the process.
pub(crate) async fn renew(config: Config, certificate: Arc<Certificate>) {
    let (mut seen, mut said) = (None, None);
    loop {
        sleep(LOOK_EVERY).await;
        let (config, ours) = (config.clone(), Arc::clone(&certificate));
        let look = move || -> Result<bool, String> {
            let identity = config.identity().map_err(|error| chain(&error))?;
            ours.replace(identity).map_err(|error| chain(&error))
        };
        // Ends with the process only.
        let trouble = match tokio::task::spawn_blocking(look).await {
            Ok(Ok(true)) => {
                say::line("the certificate was replaced; who connects from now on sees the new one");
                None
            }
            Ok(Ok(false)) | Err(_) => None,
            Ok(Err(trouble)) => Some(trouble),
        };
        // Two files are not replaced at the same instant, so what is said is what is still so at the next look.
        if trouble.is_some() && trouble == seen && trouble != said {
            let why = trouble.as_deref().unwrap_or_default();
            say::line(&format!(
                "error: the certificate in the files is of no use, and the one before is kept: {why}"
            ));
            said.clone_from(&trouble);
        }
        if trouble.is_none() {
            said = None;
        }
        seen = trouble;
    }
}

/// When a certificate ends; nothing if it is not understood. Only what leads there is read: whoever connects checks the rest.
pub fn expires(certificate: &[u8]) -> Option<UnixMs> {
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, fields, _) = element(certificate)?;
    let (first, _, rest) = element(fields)?;
    // A serial number, an algorithm, who issued it; then from when to when.
    let mut rest = if first == VERSION { rest } else { fields };
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, rest) = element(validity)?;
    let (kind, time, _) = element(rest)?;
    time_of(kind, std::str::from_utf8(time).ok()?)
}

/// The first element of DER: its kind, what is in it, and what comes after.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // No length takes more bytes in a certificate, and none fewer than it needs.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (inner, rest) = rest.split_at_checked(length)?;
    Some((kind, inner, rest))
}

/// A time of a certificate: two digits of the year until 2049, four from then on, and always UTC.
fn time_of(kind: u8, text: &str) -> Option<UnixMs> {
    let text = text.strip_suffix('Z').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let century = match (kind, text.len()) {
        (0x17, 12) if text < "50" => "20",
        (0x17, 12) => "19",
        (0x18, 14) => "",
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", format!("{century}{text}")).ok()?;
    let since = TimeZone::UTC.to_timestamp(time).ok()?.as_millisecond();
    UnixMs::new(u64::try_from(since).ok()?).ok()
}

/// Why none was made.
#[derive(Debug, thiserror::Error)]
pub enum NotMade {
    /// There is one.
    #[error("`{}` is there already, and agents may have pinned it", .0.display())]
    Exists(PathBuf),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FsError),
    /// No key or certificate could be made, or a name is none.
    #[error("no certificate can be made")]
    Certificate(#[from] rcgen::Error),
}

/// Makes a key and a certificate for these names and addresses, in the files that `config` names. Returns the pin of the
/// key, as an agent's `pins` takes it.
pub fn make(config: &Config, names: Vec<String>) -> Result<Pin, NotMade> {
    for path in [&config.certificate, &config.certificate_key] {
        if path.exists() {
            return Err(NotMade::Exists(path.clone()));
        }
    }
    let pair = KeyPair::generate()?;
    let certificate = CertificateParams::new(names)?.self_signed(&pair)?;
    if config.certificate == config.certificate_key {
        let both = format!("{}{}", certificate.pem(), pair.serialize_pem());
        fs::write_atomic(&config.certificate, both.as_bytes())?;
    } else {
        fs::write_atomic(&config.certificate_key, pair.serialize_pem().as_bytes())?;
        fs::write_atomic_mode(&config.certificate, certificate.pem().as_bytes(), 0o644)?;
    }
    Ok(Pin::of(&pair.subject_public_key_info()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ending(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let pair = KeyPair::generate().expect("randomness");
        params.self_signed(&pair).expect("it signs").der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_on_both_sides_of_a_leap_day_and_of_2050() {
        // Midnights, by `date -u -d DAY +%s`.
        for (year, month, day, secs) in [
            (2026, 11, 29, 1_795_910_400),
            (2028, 2, 29, 1_835_395_200),
            (2028, 3, 1, 1_835_481_600),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (2100, 3, 1, 4_107_542_400),
        ] {
            let expires = expires(&ending(year, month, day)).expect("a time");
            assert_eq!(expires.get(), secs * 1_000_u64, "{year}-{month}-{day}");
        }
    }

    proptest! {
        #[test]
        fn a_certificate_that_is_cut_off_or_bent_panics_nobody(at in 0usize..400, byte in any::<u8>()) {
            let mut der = ending(2030, 1, 1);
            let at = at.min(der.len() - 1);
            der[at] = byte;
            let _ = expires(&der);
            let _ = expires(&der[..at]);
        }
    }
}
