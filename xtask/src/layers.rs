//! `cargo xtask layers`: which crate may depend on which.
//!
//! Checked from `cargo metadata`, over normal, development and build dependencies alike. A new edge is a design
//! change: it goes into [`EDGES`] and ARCHITECTURE.md in one commit, with its reason.

use std::fmt;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::{say, workspace};

/// Each crate with the crates of the workspace that it may depend on. A crate that is not listed is refused.
const EDGES: &[(&str, &[&str])] = &[
    ("nixfleet-core", &[]),
    ("nixfleet-sys", &[]),
    ("nixfleet-trust", &["nixfleet-core"]),
    ("nixfleet-sim", &["nixfleet-core"]),
    ("nixfleet-agent", &["nixfleet-core", "nixfleet-trust", "nixfleet-sys"]),
    // sys: it reads the clock, watches its intake folder and replaces files as everybody else does.
    ("nixfleet-control-plane", &["nixfleet-core", "nixfleet-trust", "nixfleet-sys"]),
    ("nixfleet", &["nixfleet-core", "nixfleet-trust", "nixfleet-sys"]),
    ("nixfleet-testbed", &["nixfleet-sys"]),
    ("xtask", &[]),
];

/// Packages that may not be anywhere in the dependency graph.
const BANNED: &[(&str, &str)] = &[
    (
        "openssl-sys",
        "TLS and signatures are rustls and aws-lc-rs: no C library of the host decides what is trusted",
    ),
    ("native-tls", "it would bring the host's TLS library in"),
];

/// What is wrong with the graph.
#[derive(Debug, PartialEq, Eq)]
enum Objection {
    Edge { from: String, to: String, kind: DependencyKind, allowed: &'static [&'static str] },
    UnlistedCrate { name: String },
    Banned { name: String, reason: &'static str },
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edge { from, to, kind, allowed } => {
                let allowed =
                    if allowed.is_empty() { "no crate of ours".to_owned() } else { allowed.join(", ") };
                write!(f, "{from} -> {to} ({kind} dependency): {from} may depend on {allowed}")
            }
            Self::UnlistedCrate { name } => {
                write!(f, "{name} has no line in the table of xtask/src/layers.rs: say what it may depend on")
            }
            Self::Banned { name, reason } => write!(f, "{name} is in the dependency graph: {reason}"),
        }
    }
}

pub(crate) fn run() -> Result<()> {
    let metadata = MetadataCommand::new()
        .current_dir(workspace::root())
        .other_options(vec!["--locked".to_owned(), "--all-features".to_owned()])
        .exec()
        .context("cannot read the workspace's metadata")?;
    let objections = object(&metadata);
    for objection in &objections {
        say::line(&format!("error: {objection}"));
    }
    if !objections.is_empty() {
        bail!("{} broken layer rules", objections.len());
    }
    say::line(&format!("layers: {} crates keep to the table", metadata.workspace_packages().len()));
    Ok(())
}

fn object(metadata: &Metadata) -> Vec<Objection> {
    let ours = metadata.workspace_packages();
    let mut objections = Vec::new();
    for package in &ours {
        let name = package.name.as_str();
        let Some((_, allowed)) = EDGES.iter().find(|(listed, _)| *listed == name) else {
            objections.push(Objection::UnlistedCrate { name: name.to_owned() });
            continue;
        };
        for dependency in &package.dependencies {
            // By name, renamed or not: `name` is the package's own.
            let to = dependency.name.as_str();
            let is_ours = ours.iter().any(|other| other.name.as_str() == to);
            if is_ours && !allowed.contains(&to) {
                objections.push(Objection::Edge {
                    from: name.to_owned(),
                    to: to.to_owned(),
                    kind: dependency.kind,
                    allowed,
                });
            }
        }
    }
    for package in &metadata.packages {
        if let Some((name, reason)) = BANNED.iter().find(|(name, _)| *name == package.name.as_str()) {
            objections.push(Objection::Banned { name: (*name).to_owned(), reason });
        }
    }
    objections
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cargo metadata --no-deps` of this workspace on its first day, with the checkout at /checkout and of
    /// each crate's outside dependencies only the first two.
    fn recorded() -> Metadata {
        MetadataCommand::parse(include_str!("../fixtures/metadata.json")).expect("the fixture is valid")
    }

    /// Adds a dependency by copying one that is there.
    fn with_edge(from: &str, to: &str, kind: DependencyKind, rename: Option<&str>) -> Metadata {
        let mut metadata = recorded();
        let package = metadata
            .packages
            .iter_mut()
            .find(|package| package.name.as_str() == from)
            .expect("the crate is in the fixture");
        let mut edge = package.dependencies[0].clone();
        to.clone_into(&mut edge.name);
        edge.kind = kind;
        edge.rename = rename.map(str::to_owned);
        package.dependencies.push(edge);
        metadata
    }

    #[test]
    fn the_recorded_workspace_keeps_to_the_table() {
        let metadata = recorded();
        assert_eq!(metadata.workspace_packages().len(), 5);
        assert_eq!(object(&metadata), []);
    }

    #[test]
    fn a_forbidden_edge_is_named_whatever_its_kind_and_local_name() {
        for kind in [DependencyKind::Normal, DependencyKind::Development, DependencyKind::Build] {
            for rename in [None, Some("innocent")] {
                let objections = object(&with_edge("nixfleet-core", "nixfleet-sys", kind, rename));
                assert_eq!(objections.len(), 1, "{kind} {rename:?}");
                let text = objections[0].to_string();
                assert!(text.starts_with("nixfleet-core -> nixfleet-sys ("), "{text}");
                assert!(text.ends_with("nixfleet-core may depend on no crate of ours"), "{text}");
            }
        }
    }

    #[test]
    fn the_testbed_and_xtask_stay_apart_from_what_they_test() {
        for (from, to) in [
            ("nixfleet-testbed", "nixfleet-agent"),
            ("nixfleet-agent", "nixfleet-testbed"),
            ("xtask", "nixfleet-sys"),
        ] {
            let objections = object(&with_edge(from, to, DependencyKind::Development, None));
            assert_eq!(objections.len(), 1, "{from} -> {to}");
        }
    }

    #[test]
    fn a_crate_that_is_not_in_the_table_is_refused() {
        let mut metadata = recorded();
        let text = include_str!("../fixtures/metadata.json").replace("\"nixfleet-sys\"", "\"nixfleet-misc\"");
        metadata.packages = MetadataCommand::parse(text).expect("the fixture is valid").packages;
        assert!(object(&metadata).contains(&Objection::UnlistedCrate { name: "nixfleet-misc".to_owned() }));
    }

    #[test]
    fn a_banned_package_is_refused_with_its_reason() {
        for (name, reason) in BANNED {
            let text = include_str!("../fixtures/metadata.json");
            let mut metadata = recorded();
            let renamed = text.replace("\"xtask\"", &format!("\"{name}\""));
            let mut extra = MetadataCommand::parse(renamed).expect("the fixture is valid").packages;
            metadata.packages.extend(extra.extract_if(.., |package| package.name.as_str() == *name).map(
                |mut package| {
                    package.id.repr = format!("registry+https://index.example/#{name}@1.0.0");
                    package
                },
            ));
            let objections = object(&metadata);
            assert_eq!(objections, [Objection::Banned { name: (*name).to_owned(), reason }]);
        }
    }

    #[test]
    fn every_crate_in_the_table_may_only_name_crates_in_the_table() {
        for (name, allowed) in EDGES {
            for to in *allowed {
                assert!(EDGES.iter().any(|(listed, _)| listed == to), "{name} -> {to}");
            }
        }
    }
}
