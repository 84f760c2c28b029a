//! The questions asked of a real Nix, in a root with a cache; run by hand when a new version of Nix appears.
//!
//! `NIXFLEET_REAL` names a file with lines `KEY VALUE`: `cache` (a URL), `key` (a public key), and the store paths
//! `good`, `unsigned` and `nowhere`: signed in the cache, unsigned in the cache, in no cache.

use std::collections::BTreeMap;

use nixfleet_core::ids::StorePath;

use super::Tools;
use super::nix::{Reach, Verified, all_signed};
use super::nix_store::{Complaint, REALISE_STALL, Realised, realise};

struct Real {
    tools: Tools,
    cache: String,
    paths: BTreeMap<String, StorePath>,
}

impl Real {
    fn read() -> Self {
        let file = std::env::var("NIXFLEET_REAL").expect("NIXFLEET_REAL names a file, see the head");
        let text = std::fs::read_to_string(file).expect("readable");
        let all: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
        let tools = Tools::find_here()
            .expect("all tools are there")
            .with_nix_option("substituters", all["cache"])
            .with_nix_option("trusted-public-keys", all["key"]);
        let paths = ["good", "unsigned", "nowhere"]
            .map(|name| (name.to_owned(), all[name].parse().expect("a store path")));
        Self { tools, cache: all["cache"].to_owned(), paths: paths.into() }
    }

    async fn realise(&self, name: &str) -> (Realised, usize) {
        let mut told = 0;
        let cmd = realise(&self.tools, &self.paths[name]);
        let realised = self.tools.realise(cmd, |_| told += 1).await.expect("it ran");
        (realised, told)
    }
}

#[tokio::test]
#[ignore = "needs a root with Nix and a cache, see the head"]
async fn a_real_nix_answers_every_question() {
    let real = Real::read();
    let tools = &real.tools;
    let good = &real.paths["good"];

    let settings = tools.nix_settings().await.expect("settings");
    assert_eq!(settings.substituters, std::slice::from_ref(&real.cache));
    assert!(settings.require_sigs && settings.trusted_keys.len() == 1);

    let plan = tools.dry_run(good, REALISE_STALL).await.expect("a plan");
    assert!(plan.paths.contains(good) && plan.unknown.is_empty());
    assert_eq!(tools.dry_run(&real.paths["nowhere"], REALISE_STALL).await.expect("a plan").unknown.len(), 1);
    assert!(!tools.is_valid(good).await.expect("an answer"));

    let there =
        tools.path_info(std::slice::from_ref(good), Reach::Closures, Some(&real.cache)).await.expect("infos");
    assert!(there.known.len() > 1 && there.known.iter().all(|info| !info.signatures.is_empty()));

    let (realised, told) = real.realise("good").await;
    assert!(matches!(realised, Realised::Present) && told > 0, "{realised:?} {told}");
    assert!(tools.is_valid(good).await.expect("an answer"));
    assert!(matches!(tools.verify(good, Reach::Closures, None).await.expect("a verdict"), Verified::Trusted));
    let closure = tools.path_info(std::slice::from_ref(good), Reach::Closures, None).await.expect("infos");
    let signed = |keys| all_signed(closure.known.iter().cloned(), keys).is_some();
    assert!(closure.missing.is_empty() && signed(&settings.trusted_keys) && !signed(&[]));
    tools.copy_sigs(&real.cache, good).await.expect("signatures");

    let closure = tools.requisites(good).await.expect("a closure");
    let contents = tools.contents(&closure).await.expect("contents");
    let here = tools.path_info(std::slice::from_ref(good), Reach::Closures, None).await.expect("infos");
    assert_eq!(here.known.len(), closure.len());
    for info in &here.known {
        let row = contents.iter().find(|row| row.path == info.path).expect("it is in the closure");
        assert_eq!(
            (row.nar_hash, row.nar_size),
            (info.nar_hash, info.nar_size),
            "two interfaces, one answer"
        );
    }

    for (name, expected) in [
        ("unsigned", Complaint::NotSigned(Some(real.paths["unsigned"].clone()))),
        ("nowhere", Complaint::NotInAnyCache(Some(real.paths["nowhere"].clone()))),
    ] {
        let (Realised::Failed(failure), _) = real.realise(name).await else { panic!("{name} was realised") };
        assert_eq!(failure.complaints, [expected]);
    }
    let missing = tools.path_info(&[real.paths["nowhere"].clone()], Reach::Paths, None).await.expect("infos");
    assert_eq!(missing.missing.len(), 1);
}
