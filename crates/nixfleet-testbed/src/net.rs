//! A network of several hosts: a bridge in a namespace of its own, with the binary cache at 10.213.0.1.
//!
//! Nothing of it has a name on the machine: it lives as long as its keeper process, which ends with this process.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Result;

use crate::cache::Cache;
use crate::fault::FaultServer;
use crate::host::keeper_env;
use crate::image::{Flavour, Image};
use crate::keeper::Keeper;
use crate::run_dir::RunDir;

/// A network that hosts join by [`crate::HostBuilder::net`]. Hosts keep it alive.
#[derive(Debug)]
pub struct Net {
    faults: Mutex<Option<FaultServer>>,
    keeper: Keeper,
    image: Arc<Image>,
    next: AtomicU32,
    run: RunDir,
}

impl Net {
    /// A network whose cache holds the systems of one flavour.
    pub fn new(flavour: Flavour) -> Result<Arc<Self>> {
        let image = Image::get(flavour)?;
        crate::sweep::sweep_once();
        let run = RunDir::new("net")?;
        let mut env = keeper_env(&image, &run, &Place::alone());
        let _ = write!(env, "name='net'\ndisk_limit=0\nboot_limit=0\nreal_syncs=0\nbinds=''\n");
        crate::files::put(&run.path.join("env"), env.as_bytes(), 0o644)?;
        let keeper = Keeper::start(&image.keeper_script(), "hub", &run)?;
        Ok(Arc::new(Self { faults: Mutex::new(None), keeper, image, next: AtomicU32::new(1), run }))
    }

    /// The address at which hosts reach what listens in [`Net::namespace`].
    pub fn gateway(&self) -> &'static str {
        GATEWAY
    }

    /// The network namespace of the hub, for a server under test: `nsenter --net=<this> program`.
    pub fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.keeper.pid()).into()
    }

    /// The binary cache of this network.
    pub fn cache(&self) -> Result<Cache<'_>> {
        Ok(Cache::new(&self.keeper, &self.run, &self.image, &self.faults))
    }

    pub(crate) fn place(&self) -> Place {
        let slot = self.next.fetch_add(1, Ordering::Relaxed);
        Place {
            net_pid: self.keeper.pid(),
            slot,
            address: format!("10.213.{}.{}/16", 1 + slot / 250, 1 + slot % 250),
            gateway: GATEWAY.to_owned(),
        }
    }
}

const GATEWAY: &str = "10.213.0.1";

/// Where a host is connected.
#[derive(Debug)]
pub(crate) struct Place {
    /// 0 for a network of its own.
    pub(crate) net_pid: u32,
    pub(crate) slot: u32,
    pub(crate) address: String,
    pub(crate) gateway: String,
}

impl Place {
    /// A network with nothing but this host and its cache. It is a namespace, so all may have the same addresses.
    pub(crate) fn alone() -> Self {
        Self { net_pid: 0, slot: 0, address: "10.213.0.2/16".to_owned(), gateway: GATEWAY.to_owned() }
    }
}
