use super::*;
use crate::key::KeyFault;

const MESSAGE: &[u8] = include_bytes!("../../tests/fixtures/ssh/message");

/// A file in `tests/fixtures`.
fn fixture(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn key(name: &str) -> PublicKey {
    PublicKey::read(&String::from_utf8(fixture(name)).expect("text")).expect(name)
}

fn check(key: &PublicKey, signature: &[u8], message: &[u8]) -> Result<(), SignatureFault> {
    Signature::read(signature, key)?.verify(key, message)
}

/// Every signature recorded from a real program that must be good: the key, the signature.
const GOOD: [(&str, &str); 7] = [
    ("ssh/ed25519.pub", "ssh/ed25519.sig"),
    ("ssh/ecdsa.pub", "ssh/ecdsa.sig"),
    ("ssh/ecdsa.pub", "ssh/ecdsa-sha256.sig"),
    ("ssh/sk-ed25519.pub", "ssh/sk-ed25519.sig"),
    ("ssh/sk-ecdsa.pub", "ssh/sk-ecdsa.sig"),
    ("openssl/ed25519-public.pem", "openssl/ed25519.sig"),
    ("openssl/p256-public.pem", "openssl/p256.sig"),
];

#[test]
fn what_real_programs_signed_is_good_and_counts_for_nothing_else() {
    for (public, signature) in GOOD {
        let (public_key, signature_bytes) = (key(public), fixture(signature));
        assert_eq!(check(&public_key, &signature_bytes, MESSAGE), Ok(()), "{signature}");
        assert!(check(&public_key, &signature_bytes, b"another message").is_err(), "{signature}");
        for (other, _) in GOOD.iter().filter(|(other, _)| key(other) != public_key) {
            assert!(check(&key(other), &signature_bytes, MESSAGE).is_err(), "{signature} by {other}");
        }
    }
}

#[test]
fn every_changed_bit_of_a_signature_is_noticed() {
    for (public, signature) in GOOD {
        let public = key(public);
        let read = Signature::read(&fixture(signature), &public).expect("it is one");
        let bytes = read.bytes().to_owned();
        let mut noticed = 0;
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            let again = Signature::from_document(&changed).and_then(|again| again.verify(&public, MESSAGE));
            assert!(again.is_err(), "{signature}: bit {at}");
            noticed += 1;
        }
        assert!(noticed >= 512, "{signature}");
    }
}

#[test]
fn a_token_that_nobody_touched_is_refused() {
    let public = key("ssh/sk-ed25519-no-touch.pub");
    let signature = fixture("ssh/sk-ed25519-no-touch.sig");
    assert_eq!(check(&public, &signature, MESSAGE), Err(SignatureFault::NoTouch));
}

#[test]
fn a_signature_for_another_purpose_is_refused() {
    let refused = check(&key("ssh/ed25519.pub"), &fixture("ssh/ed25519-namespace-file.sig"), MESSAGE);
    assert_eq!(refused, Err(SignatureFault::OtherNamespace("file".to_owned())));
}

#[test]
fn a_token_makes_no_raw_signatures() {
    for public in ["ssh/sk-ed25519.pub", "ssh/sk-ecdsa.pub"] {
        let raw = Signature::from_document(&[7; 64]).expect("64 bytes are a raw signature");
        assert_eq!(raw.verify(&key(public), MESSAGE), Err(SignatureFault::RawByToken));
    }
}

#[test]
fn the_key_that_an_openssh_signature_names_is_found() {
    let named = Signature::claimed_key(&fixture("ssh/ecdsa.sig")).expect("it is one");
    assert_eq!(named, Some(key("ssh/ecdsa.pub")));
    assert_eq!(Signature::claimed_key(&[7; 64]), Ok(None));
    let rsa = Signature::claimed_key(&fixture("ssh/rsa.sig"));
    assert_eq!(rsa, Err(SignatureFault::Key(KeyFault::OtherType("ssh-rsa".to_owned()))));
}

/// P-256's order n, whose half divides "low" from "high" s.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// `a - b` over 32 bytes, for b < a.
fn minus(a: &[u8; 32], b: &[u8]) -> [u8; 32] {
    let (mut out, mut borrow) = ([0u8; 32], 0u16);
    for at in (0..32).rev() {
        let difference = 256 + u16::from(a[at]) - u16::from(b[at]) - borrow;
        out[at] = u8::try_from(difference % 256).expect("below 256");
        borrow = 1 - difference / 256;
    }
    out
}

#[test]
fn both_forms_of_s_are_accepted_since_hardware_makes_either() {
    let public = key("openssl/p256-public.pem");
    let raw = Signature::read(&fixture("openssl/p256.sig"), &public).expect("DER").bytes().to_owned();
    let mirrored = [&raw[..32], &minus(&ORDER, &raw[32..])].concat();
    assert_ne!(raw, mirrored);
    let (one, other) = (raw[32] >= 0x80, mirrored[32] >= 0x80);
    assert_ne!(one, other, "one of the two is the high form");
    for bytes in [raw, mirrored] {
        assert_eq!(check(&public, &bytes, MESSAGE), Ok(()));
    }
}

#[test]
fn der_has_one_encoding() {
    let public = key("openssl/p256-public.pem");
    let der = fixture("openssl/p256.sig");
    assert_eq!(check(&public, &der, MESSAGE), Ok(()));
    let (mut trailing, mut long_form, mut padded) = (der.clone(), der.clone(), der.clone());
    trailing.push(0);
    long_form.splice(1..2, [0x81, der[1]]);
    // One more zero in front of r than its sign needs.
    let zeros: &[u8] = if der[4] == 0 { &[0] } else { &[0, 0] };
    padded.splice(4..4, zeros.iter().copied());
    let more = u8::try_from(zeros.len()).expect("2");
    padded[1] += more;
    padded[3] += more;
    for (what, bytes) in [("trailing", trailing), ("long form", long_form), ("padded", padded)] {
        assert_eq!(check(&public, &bytes, MESSAGE), Err(SignatureFault::UnknownForm), "{what}");
    }
}

#[test]
fn noise_and_sizes_are_refused_without_panic() {
    let keys = GOOD.map(|(public, _)| key(public));
    let armour = b"-----BEGIN SSH SIGNATURE-----\n!!\n-----END SSH SIGNATURE-----\n";
    for public in &keys {
        for length in [0, 1, 63, 64, 65, 70, 128, SIGNATURE_LEN_MAX, SIGNATURE_LEN_MAX + 1, 5000] {
            assert!(check(public, &vec![0; length], MESSAGE).is_err(), "{length} zeros");
        }
        assert_eq!(check(public, armour, MESSAGE), Err(SignatureFault::Armour));
        assert_eq!(check(public, b"-----BEGIN SSH SIGNATURE-----", MESSAGE), Err(SignatureFault::Armour));
        assert!(matches!(check(public, b"SSHSIG", MESSAGE), Err(SignatureFault::Wire(_))));
        assert_eq!(check(public, b"SSHSIG\0\0\0\x02", MESSAGE), Err(SignatureFault::Version(2)));
    }
}
