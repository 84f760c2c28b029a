//! Signatures of store paths, checked here: the same bytes and keys as `nix store verify`, a third of its time.
//!
//! Only a "yes" counts. Whatever is not plainly signed (named by its contents alone, a form of signature or key that is
//! not known) is a "no", and then Nix is asked, whose word is the verdict.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use data_encoding::BASE64;
use nixfleet_core::nix::path_info::{PathInfo, PathInfos, PathSignature};

use super::settings::TrustedKey;

/// Threads that check; more would take the processors from what runs beside.
const THREADS_MAX: usize = 4;

/// Whether there is something, nothing of it is missing, and each path is signed by one of the keys.
pub fn all_signed(infos: &PathInfos, keys: &[TrustedKey]) -> bool {
    if !infos.missing.is_empty() || infos.known.is_empty() {
        return false;
    }
    let keys: Vec<Key<'_>> = keys.iter().filter_map(Key::read).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let each = infos.known.len().div_ceil(threads);
    let part_is_signed = |part: &[PathInfo]| part.iter().all(|info| is_signed(info, &keys));
    std::thread::scope(|scope| {
        let parts: Vec<_> =
            infos.known.chunks(each).map(|part| scope.spawn(|| part_is_signed(part))).collect();
        parts.into_iter().all(|part| part.join().unwrap_or(false))
    })
}

/// A key that can be checked with.
struct Key<'a> {
    name: &'a str,
    key: UnparsedPublicKey<Vec<u8>>,
}

impl<'a> Key<'a> {
    fn read(key: &'a TrustedKey) -> Option<Self> {
        let bytes = BASE64.decode(key.base64.as_bytes()).ok()?;
        Some(Self { name: &key.name, key: UnparsedPublicKey::new(&ED25519, bytes) })
    }

    fn made(&self, signature: &PathSignature, message: &[u8]) -> bool {
        let bytes = BASE64.decode(signature.base64.as_bytes());
        self.name == signature.key && bytes.is_ok_and(|bytes| self.key.verify(message, &bytes).is_ok())
    }
}

fn is_signed(info: &PathInfo, keys: &[Key<'_>]) -> bool {
    let message = info.fingerprint();
    let by_one = |signature| keys.iter().any(|key| key.made(signature, message.as_bytes()));
    info.signatures.iter().any(by_one)
}

#[cfg(test)]
mod tests {
    use nixfleet_core::nix::path_info::parse_path_info;
    use proptest::prelude::*;

    use super::*;
    use crate::tools::tests::{NIX, recorded};

    /// The key of the cache that the recorded closure came from.
    fn key(version: &str) -> TrustedKey {
        let base64 = match version {
            "2.26.3" => "YzBbndqpkD3HYUWUrMlR0c/igpD85ET3kXZxj4qo9f8=",
            "2.8.0" => "XnDz3k0/yiwGcg2/2Lrke2xVDwfgJ7nM77f7EWZPUJM=",
            other => panic!("no key of {other}"),
        };
        TrustedKey { name: "test-cache-1".into(), base64: base64.into() }
    }

    fn closure(version: &str) -> PathInfos {
        let json = recorded(&format!("nix-{version}-path-info-signed"), "stdout");
        parse_path_info(json.as_bytes()).expect("it was recorded")
    }

    #[test]
    fn what_a_real_nix_signed_is_signed() {
        for version in NIX {
            let infos = closure(version);
            assert!(infos.known.len() > 30, "a closure of a system");
            assert!(infos.known.iter().any(|info| info.references.len() > 2), "one with references");
            let other = TrustedKey { name: "other-1".into(), base64: key(NIX[0]).base64 };
            assert!(all_signed(&infos, &[other.clone(), key(version)]));
            assert!(!all_signed(&infos, &[other]), "a key of another name");
            assert!(!all_signed(&infos, &[]), "no key");
        }
    }

    #[test]
    fn the_name_of_a_key_is_not_enough() {
        let impostor = TrustedKey { base64: key(NIX[1]).base64, ..key(NIX[0]) };
        assert!(!all_signed(&closure(NIX[0]), &[impostor]));
        for odd in ["", "abc", "YzBbndqpkD3HYUWUrMlR0c/igpD85ET3kXZxj4qo9f8", "AAAA"] {
            assert!(
                !all_signed(&closure(NIX[0]), &[TrustedKey { base64: odd.into(), ..key(NIX[0]) }]),
                "{odd}"
            );
        }
    }

    #[test]
    fn nothing_and_what_is_missing_are_not_signed() {
        assert!(!all_signed(&PathInfos::default(), &[key(NIX[0])]));
        let mut infos = closure(NIX[0]);
        infos.missing.push(infos.known[0].path.clone());
        assert!(!all_signed(&infos, &[key(NIX[0])]));
    }

    #[test]
    fn a_signature_more_that_is_none_does_no_harm() {
        let mut infos = closure(NIX[0]);
        for info in &mut infos.known {
            let odd = PathSignature { key: "test-cache-1".into(), base64: "no base64".into() };
            info.signatures.insert(0, odd);
        }
        assert!(all_signed(&infos, &[key(NIX[0])]));
    }

    proptest! {
        #[test]
        fn one_path_that_differs_in_anything_spoils_the_closure(
            at in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), what in 0..6_u8, bit in 0..8_u32,
        ) {
            let mut infos = closure(NIX[0]);
            let (at, other) = (at.index(infos.known.len()), other.index(infos.known.len()));
            let stranger = infos.known[other].clone();
            let info = &mut infos.known[at];
            match what {
                0 => info.path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a".parse().expect("a path"),
                1 => {
                    let mut hash = *info.nar_hash.sha256();
                    hash[other % 32] ^= 1 << bit;
                    info.nar_hash = nixfleet_core::nix::nar_hash::NarHash::from_sha256(hash);
                }
                2 => info.nar_size ^= 1 << bit,
                3 if info.references.is_empty() => info.references.push(stranger.path),
                3 => drop(info.references.remove(other % info.references.len())),
                4 => info.signatures.clear(),
                _ if at == other => info.signatures[0].base64.clear(),
                _ => info.signatures = stranger.signatures,
            }
            prop_assert!(!all_signed(&infos, &[key(NIX[0])]));
        }
    }
}
