//! The fleet folder: where the description, the keys, the next root and the served folder are.

use std::io::Read;
use std::path::{Path, PathBuf};

use nixfleet::authority::{self, Pending};
use nixfleet::fleet::{self, Fleet};
use nixfleet::numbers::Numbers;
use nixfleet::served::Served;
use nixfleet_core::model::names::ChannelName;
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::fs;
use nixfleet_trust::trust::Trust;

use super::Places;
use super::ui::{self, Complaint, Output};

/// The fleet folder of a call.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    served: Served,
    description: Option<PathBuf>,
}

impl Folder {
    pub(crate) fn new(places: Places) -> Self {
        let Places { dir, served, description } = places;
        let served = Served::new(served.unwrap_or_else(|| dir.join("served")));
        Self { dir, served, description }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn served(&self) -> &Served {
        &self.served
    }

    pub(crate) fn pending(&self) -> Pending {
        Pending::in_folder(&self.dir)
    }

    /// Where links to what was built for a channel are; an absolute path, since Nix remembers it.
    pub(crate) fn roots(&self, channel: &ChannelName) -> Result<PathBuf, Complaint> {
        Ok(fs::resolve(&self.dir)?.join("roots").join(channel.as_str()))
    }

    /// A path below the fleet folder, as a person would type it.
    pub(crate) fn join(&self, below: &str) -> PathBuf {
        if self.dir == Path::new(".") { PathBuf::from(below) } else { self.dir.join(below) }
    }

    /// What is trusted now, beginning with the root in the file `first`, or with the oldest that is served.
    pub(crate) fn trust(&self, first: Option<&Path>, now: UnixMs) -> Result<Trust, Complaint> {
        let first = first.map(|path| fs::read_bounded(path, 1 << 20)).transpose()?;
        authority::trust(&self.served, first.as_deref(), now).map_err(|no_root| match no_root {
            authority::NoRoot::None(_) => Complaint::from(no_root)
                .hint("`nixfleet root new` begins one, and `nixfleet root sign` puts it in force"),
            authority::NoRoot::Served(_) | authority::NoRoot::First(_) | authority::NoRoot::Next { .. } => {
                no_root.into()
            }
        })
    }

    /// The numbers of a channel's releases, by the roots that are served. Whoever needs a root says what is wrong with it; here
    /// all releases count then.
    pub(crate) fn numbers(&self, channel: &ChannelName, now: UnixMs) -> Result<Numbers, Complaint> {
        self.numbers_by(None, channel, now)
    }

    /// The same by the roots that begin with the one in the file `first`.
    pub(crate) fn numbers_by(
        &self,
        first: Option<&Path>,
        channel: &ChannelName,
        now: UnixMs,
    ) -> Result<Numbers, Complaint> {
        let first = first.map(|path| fs::read_bounded(path, 1 << 20)).transpose()?;
        let trust = authority::trust(&self.served, first.as_deref(), now).ok();
        let set_back = authority::set_back(&self.served, first.as_deref(), now, channel).ok().flatten();
        let root = trust.as_ref().map(|trust| &**trust.root());
        Ok(Numbers::of(&self.served, channel, root, set_back)?)
    }

    /// The folder from which relative installables are read.
    pub(crate) fn description_folder(&self) -> Result<PathBuf, Complaint> {
        let parent = match self.description.as_deref() {
            None => self.dir.clone(),
            Some(path) if path == Path::new("-") => PathBuf::from("."),
            Some(path) => {
                path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
            }
        };
        Ok(fs::resolve(&parent)?)
    }

    /// The fleet description. Its faults go to stderr, or as JSON to stdout.
    pub(crate) fn fleet(&self, output: Output) -> Result<Fleet, Complaint> {
        let path = self.description.clone().unwrap_or_else(|| self.join("fleet.json"));
        let (name, bytes) = if path == Path::new("-") {
            let mut bytes = Vec::new();
            let most = nixfleet::spanned::BYTES_MAX as u64 + 1;
            std::io::stdin().lock().take(most).read_to_end(&mut bytes)?;
            ("standard input".to_owned(), bytes)
        } else {
            let bytes = fs::read_bounded(&path, nixfleet::spanned::BYTES_MAX as u64)?;
            (path.display().to_string(), bytes)
        };
        let text = String::from_utf8(bytes)
            .map_err(|error| Complaint::refused(format!("{name} is not a text: {}", error.utf8_error())))?;
        fleet::read(&text).map_err(|faults| complain(&name, &text, &faults, output))
    }
}

fn complain(name: &str, text: &str, faults: &[fleet::faults::Fault], output: Output) -> Complaint {
    /// What programs get beside the error.
    #[derive(serde::Serialize)]
    struct Refused {
        faults: Vec<fleet::faults::PlacedFault>,
    }
    match output {
        Output::Json => {}
        Output::Table | Output::Name => ui::say(fleet::faults::render(name, text, faults).trim_end()),
    }
    Complaint::refused(format!("{name} has {}", ui::counted(faults.len(), "fault")))
        .with(&Refused { faults: fleet::faults::placed(text, faults) })
}
