use super::*;
use crate::signature::Signature;
use proptest::prelude::*;

fn fixture(name: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn refusal(text: &str) -> KeyFault {
    PublicKey::read(text).expect_err(text).0
}

#[test]
fn openssh_lines_are_read_and_their_ids_are_what_ssh_keygen_prints() {
    let mut compared = 0;
    for line in fixture("ssh/fingerprints").lines() {
        let (name, fingerprint) = line.split_once(' ').expect("a name and a fingerprint");
        let text = fixture(&format!("ssh/{name}.pub"));
        let key = PublicKey::read(&text).expect(name);
        assert_eq!(key.id().as_str(), fingerprint, "{name}");
        assert_eq!(format!("{key} test key\n"), text, "{name}: written as it was read");
        assert_eq!(PublicKey::from_blob(&key.blob()).expect(name), key);
        compared += 1;
    }
    assert_eq!(compared, 4);
}

#[test]
fn pem_is_read_and_gives_the_same_der_again() {
    for (name, kind) in
        [("openssl/ed25519-public.pem", KeyType::Ed25519), ("openssl/p256-public.pem", KeyType::P256)]
    {
        let text = fixture(name);
        let key = PublicKey::read(&text).expect(name);
        assert_eq!(key.key_type(), kind);
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let der = key.spki().expect("a key outside a token");
        assert_eq!(BASE64.encode(&der), body, "{name}");
        assert_eq!(PublicKey::from_spki(&der).expect(name), key);
        assert_eq!(PublicKey::read(&key.to_string()).expect("its own form"), key);
    }
    assert_eq!(PublicKey::read(&fixture("ssh/sk-ecdsa.pub")).expect("a token's key").spki(), None);
}

#[test]
fn everything_else_is_refused_by_name_and_with_what_is_taken() {
    let ed25519 = fixture("ssh/ed25519.pub");
    let ecdsa = fixture("ssh/ecdsa.pub");
    let blob = ed25519.split(' ').nth(1).expect("base64");
    for (text, fault) in [
        (fixture("ssh/rsa.pub"), KeyFault::OtherType("ssh-rsa".to_owned())),
        (fixture("ssh/certificate.pub"), KeyFault::Certificate),
        (fixture("openssl/certificate.pem"), KeyFault::Certificate),
        (fixture("openssl/ed25519-private.pem"), KeyFault::PrivateKey),
        (fixture("openssl/p256-encrypted.pem"), KeyFault::PrivateKey),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----".to_owned(),
            KeyFault::PrivateKey,
        ),
        ("AGE-SECRET-KEY-1QQQ".to_owned(), KeyFault::PrivateKey),
        (
            "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=".to_owned(),
            KeyFault::NixCacheKey,
        ),
        ("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".to_owned(), KeyFault::UnknownForm),
        (String::new(), KeyFault::UnknownForm),
        ("ssh-ed25519 %%%".to_owned(), KeyFault::NotBase64),
        ("ssh-ed25519".to_owned(), KeyFault::Wire(WireError::Short)),
        (
            format!("ecdsa-sha2-nistp256 {blob}"),
            KeyFault::TwoTypes { line: "ecdsa-sha2-nistp256".to_owned(), key: "ssh-ed25519".to_owned() },
        ),
        (ecdsa.replace("nistp256", "nistp384"), KeyFault::OtherType("ecdsa-sha2-nistp384".to_owned())),
        (
            "-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----".to_owned(),
            KeyFault::OtherType("RSA PUBLIC KEY".to_owned()),
        ),
        ("-----BEGIN PUBLIC KEY-----\nAAAA".to_owned(), KeyFault::NotBase64),
    ] {
        assert_eq!(refusal(&text), fault, "{text}");
        let said = PublicKey::read(&text).expect_err("refused").to_string();
        assert!(said.contains("taken are"), "{said}");
    }
    for pem in ["openssl/p384-public.pem", "openssl/p256-compressed-public.pem"] {
        assert!(matches!(refusal(&fixture(pem)), KeyFault::OtherType(_)), "{pem}");
    }
}

#[test]
fn documents_have_one_form_for_a_key() {
    let text = fixture("ssh/ed25519.pub");
    let key = PublicKey::read(&text).expect("a key");
    let json = serde_json::to_string(&key).expect("a text");
    assert_eq!(serde_json::from_str::<PublicKey>(&json).expect("its own form"), key);
    for other in [text.trim().to_owned(), format!(" {key}"), key.to_string().replace(' ', "  ")] {
        let json = serde_json::to_string(&other).expect("a text");
        assert!(serde_json::from_str::<PublicKey>(&json).is_err(), "{other}");
    }
}

#[test]
fn a_host_has_no_key_in_a_token() {
    let ecdsa: HostKey =
        PublicKey::read(&fixture("ssh/ecdsa.pub")).expect("a key").try_into().expect("plain");
    assert_eq!(PublicKey::of_host(&ecdsa).expect("a host's key").to_string(), ecdsa.as_str());
    let token = PublicKey::read(&fixture("ssh/sk-ed25519.pub")).expect("a key");
    assert_eq!(HostKey::try_from(token).expect_err("a token").0, KeyFault::HostKeyWantsTouch);
}

fn line(name: &str, fields: &[&[u8]]) -> String {
    let mut blob = Vec::new();
    put_string(&mut blob, name.as_bytes());
    for field in fields {
        put_string(&mut blob, field);
    }
    format!("{name} {}", BASE64.encode(&blob))
}

#[test]
fn points_that_are_none_are_refused() {
    let p256 = PublicKey::read(&fixture("ssh/ecdsa.pub")).expect("a key");
    let mut off_curve = p256.point().to_owned();
    off_curve[64] ^= 1;
    let name = "ecdsa-sha2-nistp256";
    assert_eq!(refusal(&line(name, &[b"nistp256", &off_curve])), KeyFault::NotAPoint);
    assert_eq!(refusal(&line(name, &[b"nistp256", &[4; 64]])), KeyFault::PointLength(64));
    let mut compressed = vec![2];
    compressed.extend_from_slice(&p256.point()[1..33]);
    assert_eq!(refusal(&line(name, &[b"nistp256", &compressed])), KeyFault::PointLength(33));
    let mut hybrid = p256.point().to_owned();
    hybrid[0] = 6 + (hybrid[64] & 1);
    assert_eq!(refusal(&line(name, &[b"nistp256", &hybrid])), KeyFault::NotAPoint);
    assert_eq!(
        refusal(&line(name, &[b"nistp384", p256.point()])),
        KeyFault::OtherType("nistp384".to_owned())
    );
    assert_eq!(refusal(&line("ssh-ed25519", &[&[9; 31]])), KeyFault::PointLength(31));
    assert_eq!(refusal(&line("ssh-ed25519", &[&[9; 32], b""])), KeyFault::Wire(WireError::LeftOver));
    let website = line("sk-ssh-ed25519@openssh.com", &[&[9; 32], b"https://example.org"]);
    assert_eq!(refusal(&website), KeyFault::Application("https://example.org".to_owned()));
    // p - 1 + 2 = p + 1, the second encoding of 1, and the largest number of all.
    for y in [0xee, 0xff] {
        let mut point = [0xff; 32];
        (point[0], point[31]) = (y, 0x7f);
        assert_eq!(refusal(&line("ssh-ed25519", &[&point])), KeyFault::NotAPoint);
    }
}

#[test]
fn anybody_can_sign_for_a_weak_point() {
    // For each point of the list there is a message that the signature "R = some weak point, S = 0" fits, and nobody
    // needed a private key to make it. So each has its place in the list.
    let weak: Vec<[u8; 32]> = ED25519_WEAK
        .iter()
        .flat_map(|y| {
            [0, 0x80].map(|sign| {
                let mut point = *y;
                point[31] |= sign;
                point
            })
        })
        .collect();
    for point in &weak {
        assert_eq!(refusal(&line("ssh-ed25519", &[point])), KeyFault::WeakPoint);
    }
    let mut forged = 0;
    for y in &ED25519_WEAK {
        let key = PublicKey(Kind::Ed25519(*y));
        let fits = (0..200u8).any(|message| {
            weak.iter().any(|r| {
                let signature = [&r[..], &[0; 32]].concat();
                Signature::from_document(&signature).is_ok_and(|it| it.verify(&key, &[message]).is_ok())
            })
        });
        assert!(fits, "{y:02x?}");
        forged += 1;
    }
    assert_eq!(forged, 5);
}

#[test]
fn fingerprints_are_read_strictly() {
    let good = "SHA256:se/u4h6kbhLt7xZP+3ek0AXyWDID1KPUotQ/1zAvra0";
    assert_eq!(good.parse::<KeyId>().expect("a fingerprint").as_str(), good);
    for bad in [
        "",
        "SHA256:",
        &good[1..],
        &good[..49],
        &format!("{good}="),
        &format!("{}1", &good[..49]),
        "MD5:00:11",
    ] {
        assert!(bad.parse::<KeyId>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn noise_is_never_a_key_and_never_a_panic(text in "(ssh-ed25519|ecdsa-sha2-nistp256|-----BEGIN PUBLIC KEY-----)?\\PC{0,80}") {
        prop_assert!(PublicKey::read(&text).is_err());
    }

    #[test]
    fn a_key_comes_back_from_every_form(point in any::<[u8; 32]>(), application in "ssh:[a-z]{0,20}") {
        let Ok(point) = ed25519_point(&point) else { return Ok(()) };
        for kind in [Kind::Ed25519(point), Kind::SkEd25519 { point, application }] {
            let key = PublicKey(kind);
            prop_assert_eq!(&PublicKey::read(&key.to_string()).expect("its own form"), &key);
            prop_assert_eq!(&PublicKey::from_blob(&key.blob()).expect("its own form"), &key);
            if let Some(der) = key.spki() {
                prop_assert_eq!(&PublicKey::from_spki(&der).expect("its own form"), &key);
            }
        }
    }
}
