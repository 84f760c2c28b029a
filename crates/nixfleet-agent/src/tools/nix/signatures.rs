//! Signatures of store paths, checked here: the same bytes and keys as `nix store verify`, a third of its time.
//!
//! Only a "yes" counts. Whatever is not plainly signed (named by its contents alone, a form of signature or key that is
//! not known) is a "no", and then Nix is asked, whose word is the verdict.

use std::sync::Mutex;

use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use data_encoding::BASE64;
use nixfleet_core::nix::closure::Contents;
use nixfleet_core::nix::path_info::{PathInfo, PathSignature};

use super::settings::TrustedKey;

/// Threads that check; more would take the processors from what runs beside.
const THREADS_MAX: usize = 4;

/// What the paths contain, in no order, if there are any and each is signed by one of the keys.
///
/// They are checked as they come, so one may be told of while others are checked.
pub fn all_signed(
    paths: impl Iterator<Item = PathInfo> + Send,
    keys: &[TrustedKey],
) -> Option<Vec<Contents>> {
    let keys: Vec<Key<'_>> = keys.iter().filter_map(Key::read).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let paths = Mutex::new(paths);
    // One that finds a path that is not signed stops there, and the answer is no whatever the others find.
    let theirs_are_signed = || {
        let next = || paths.lock().ok()?.next();
        std::iter::from_fn(next).map(|info| is_signed(&info, &keys).then(|| info.contents())).collect()
    };
    let parts: Option<Vec<Vec<Contents>>> = std::thread::scope(|scope| {
        let theirs: Vec<_> = (0..threads).map(|_| scope.spawn(theirs_are_signed)).collect();
        theirs.into_iter().map(|part| part.join().ok().flatten()).collect()
    });
    parts.map(|parts| parts.concat()).filter(|contents| !contents.is_empty())
}

/// A key that can be checked with.
struct Key<'a> {
    name: &'a str,
    key: ParsedPublicKey,
}

impl<'a> Key<'a> {
    fn read(key: &'a TrustedKey) -> Option<Self> {
        let bytes = BASE64.decode(key.base64.as_bytes()).ok()?;
        Some(Self { name: &key.name, key: ParsedPublicKey::new(&ED25519, bytes).ok()? })
    }

    fn made(&self, signature: &PathSignature, message: &[u8]) -> bool {
        let bytes = BASE64.decode(signature.base64.as_bytes());
        self.name == signature.key && bytes.is_ok_and(|bytes| self.key.verify_sig(message, &bytes).is_ok())
    }
}

fn is_signed(info: &PathInfo, keys: &[Key<'_>]) -> bool {
    let message = info.fingerprint();
    let by_one = |signature| keys.iter().any(|key| key.made(signature, message.as_bytes()));
    info.signatures.iter().any(by_one)
}

#[cfg(test)]
mod tests {
    use nixfleet_core::nix::path_info::{PathInfos, parse_path_info};
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

    fn signed(infos: &PathInfos, keys: &[TrustedKey]) -> bool {
        all_signed(infos.known.iter().cloned(), keys).is_some()
    }

    #[test]
    fn what_a_real_nix_signed_is_signed() {
        for version in NIX {
            let infos = closure(version);
            assert!(infos.known.len() > 30, "a closure of a system");
            assert!(infos.known.iter().any(|info| info.references.len() > 2), "one with references");
            let other = TrustedKey { name: "other-1".into(), base64: key(NIX[0]).base64 };
            assert!(signed(&infos, &[other.clone(), key(version)]));
            assert!(!signed(&infos, &[other]), "a key of another name");
            assert!(!signed(&infos, &[]), "no key");
        }
    }

    #[test]
    fn the_name_of_a_key_is_not_enough() {
        let impostor = TrustedKey { base64: key(NIX[1]).base64, ..key(NIX[0]) };
        assert!(!signed(&closure(NIX[0]), &[impostor]));
        for odd in ["", "abc", "YzBbndqpkD3HYUWUrMlR0c/igpD85ET3kXZxj4qo9f8", "AAAA"] {
            assert!(!signed(&closure(NIX[0]), &[TrustedKey { base64: odd.into(), ..key(NIX[0]) }]), "{odd}");
        }
    }

    #[test]
    fn nothing_is_not_signed() {
        assert!(!signed(&PathInfos::default(), &[key(NIX[0])]));
    }

    #[test]
    fn of_each_path_that_is_signed_the_contents_are_told_once() {
        let infos = closure(NIX[0]);
        let mut found = all_signed(infos.known.iter().cloned(), &[key(NIX[0])]).expect("all are");
        found.sort_by(|a, b| a.path.cmp(&b.path));
        let mut expected: Vec<Contents> = infos.known.iter().map(PathInfo::contents).collect();
        expected.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(found, expected);
    }

    #[test]
    fn paths_that_come_late_are_waited_for() {
        let infos = closure(NIX[0]);
        let (told, heard) = std::sync::mpsc::channel();
        let all = infos.known.len();
        std::thread::scope(|scope| {
            let found = scope.spawn(|| all_signed(heard.into_iter(), &[key(NIX[0])]));
            for info in infos.known {
                told.send(info).expect("somebody listens");
                std::thread::yield_now();
            }
            drop(told);
            assert_eq!(found.join().expect("no panic").map(|contents| contents.len()), Some(all));
        });
    }

    #[test]
    fn a_signature_more_that_is_none_does_no_harm() {
        let mut infos = closure(NIX[0]);
        for info in &mut infos.known {
            let odd = PathSignature { key: "test-cache-1".into(), base64: "no base64".into() };
            info.signatures.insert(0, odd);
        }
        assert!(signed(&infos, &[key(NIX[0])]));
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
            prop_assert!(!signed(&infos, &[key(NIX[0])]));
        }
    }
}
