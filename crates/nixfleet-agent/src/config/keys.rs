//! The one table of keys: their names, their flags, what they mean.

use nixfleet_sys::text;

/// A key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The root document.
    Root,
    /// Where releases come from.
    Source,
    /// The channel.
    Channel,
    /// The host's name in its fleet.
    Host,
    /// The host's public key.
    HostKey,
    /// The state folder.
    StateDir,
    /// The pause between two looks.
    Poll,
    /// Authorities that vouch for the server.
    CaFile,
    /// Keys that the server may have.
    Pins,
    /// Whether the host may restart.
    Reboot,
}

/// What stands behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One text.
    Text,
    /// A list of texts.
    Texts,
}

impl Key {
    /// All of them, in the order in which a file should have them.
    pub const ALL: [Self; 10] = [
        Self::Root,
        Self::Source,
        Self::Channel,
        Self::Host,
        Self::HostKey,
        Self::StateDir,
        Self::Poll,
        Self::CaFile,
        Self::Pins,
        Self::Reboot,
    ];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Source => "source",
            Self::Channel => "channel",
            Self::Host => "host",
            Self::HostKey => "host-key",
            Self::StateDir => "state-dir",
            Self::Poll => "poll",
            Self::CaFile => "ca-file",
            Self::Pins => "pins",
            Self::Reboot => "reboot",
        }
    }

    /// Its flag on the command line.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Root => "--root",
            Self::Source => "--source",
            Self::Channel => "--channel",
            Self::Host => "--host",
            Self::HostKey => "--host-key",
            Self::StateDir => "--state-dir",
            Self::Poll => "--poll",
            Self::CaFile => "--ca-file",
            Self::Pins => "--pin",
            Self::Reboot => "--reboot",
        }
    }

    /// What stands behind it.
    pub fn shape(self) -> Shape {
        match self {
            Self::Pins => Shape::Texts,
            Self::Root
            | Self::Source
            | Self::Channel
            | Self::Host
            | Self::HostKey
            | Self::StateDir
            | Self::Poll
            | Self::CaFile
            | Self::Reboot => Shape::Text,
        }
    }

    /// A line with it, for messages.
    pub fn example(self) -> &'static str {
        match self {
            Self::Root => "root = \"/etc/nixfleet/root.json\"",
            Self::Source => "source = \"https://releases.example\"",
            Self::Channel => "channel = \"stable\"",
            Self::Host => "host = \"web-1\"",
            Self::HostKey => "host-key = \"/etc/ssh/ssh_host_ed25519_key.pub\"",
            Self::StateDir => "state-dir = \"/var/lib/nixfleet\"",
            Self::Poll => "poll = \"60s\"",
            Self::CaFile => "ca-file = \"/etc/nixfleet/ca.pem\"",
            Self::Pins => "pins = [\"sha256//…\"]",
            Self::Reboot => "reboot = \"never\"",
        }
    }

    /// The key with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// The key whose name is most like this one, if any is.
    pub fn like(name: &str) -> Option<Self> {
        text::nearest(name, Self::ALL.into_iter().map(Self::name)).and_then(Self::named)
    }
}
