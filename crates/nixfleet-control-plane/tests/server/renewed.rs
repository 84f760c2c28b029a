//! A certificate that is renewed while the server serves.

use std::sync::Arc;

use nixfleet_control_plane::config::ready::Identity;
use nixfleet_control_plane::tls::Certificate;
use rcgen::{CertificateParams, KeyPair};
use reqwest::StatusCode;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::fleet::{Fleet, now};
use crate::running::{Running, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_after_a_renewal_sees_the_new_certificate_and_who_was_there_goes_on() {
    let fleet = Fleet::of(&["web-1"]);
    let mut running = Running::start(&fleet).await;
    // Its connection is kept, and it trusts the old certificate only.
    let before = running.person(&running.viewer);
    assert_eq!(before.get("/v1/fleet").await.0, StatusCode::OK);
    running.renew_certificate();
    let seen = async {
        // It trusts the new one only.
        while running.anybody().request(reqwest::Method::GET, "/healthz").send().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SOON, seen).await.expect("it is read");
    assert_eq!(before.get("/v1/fleet").await.0, StatusCode::OK, "an old connection goes on");
    let (_, metrics) = running.person(&running.viewer).get("/metrics").await;
    let metrics = metrics.as_str().expect("a text");
    let line =
        metrics.lines().find(|line| line.starts_with("nixfleet_certificate_expires_timestamp_seconds "));
    let ends: u64 = line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("when it ends");
    assert!(ends > now().get() / 1_000, "{ends}");
    running.stop().await;
}

fn identity() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let pair = KeyPair::generate().expect("randomness");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&pair).expect("it signs").der().clone();
    (certificate, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der())))
}

#[test]
fn a_certificate_whose_key_is_another_one_does_not_take_the_place_of_one_that_works() {
    let ((first, key), (second, second_key)) = (identity(), identity());
    let chain = |certificate: &CertificateDer<'static>| vec![certificate.clone()];
    let with = |certificate, key: &PrivateKeyDer<'static>| Identity {
        chain: chain(certificate),
        key: key.clone_key(),
    };
    let certificate = Arc::new(Certificate::new(with(&first, &key)).expect("a pair"));
    assert!(!certificate.replace(with(&first, &key)).expect("a pair"), "it is the same");
    certificate.replace(with(&second, &key)).expect_err("half of it was replaced");
    assert!(!certificate.replace(with(&first, &key)).expect("a pair"), "it was kept");
    assert!(certificate.replace(with(&second, &second_key)).expect("a pair"));
    Certificate::new(with(&first, &second_key)).expect_err("a server does not start with it either");
}
