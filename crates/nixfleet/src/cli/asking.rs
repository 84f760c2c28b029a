//! Asking a control plane: where it is, as whom, and what a person is told when it does not answer.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nixfleet::remote::settings::{self, NotSet, Said, Token};
use nixfleet::remote::{NotAnswered, Remote};
use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_core::wire::people::{FleetView, HostView, Problem};
use nixfleet_sys::text::{chain, nearest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::span;
use super::ui::{Complaint, Done};

/// How many hosts are looked through for the one that was meant.
const MEANT_AMONG: usize = 10_000;

/// Where the control plane is, and as whom it is asked.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Control plane (else NIXFLEET_SERVER, NIXFLEET_TOKEN, NIXFLEET_PIN, NIXFLEET_CA; \
                               else server, token, pin, ca in ~/.config/nixfleet, mode 0600)"
)]
pub(crate) struct AskArgs {
    /// Its address, such as `https://fleet.example.org:8443`
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// A file with your token, readable by you alone; other programs can see what stands on a command line
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The key of the server, as `nixfleet-control-plane certificate` prints it [default: certificates decide]
    #[arg(long, value_name = "sha256//…", conflicts_with = "ca")]
    pin: Option<String>,
    /// Authorities that vouch for the server, PEM [default: those of this machine]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How long an answer may take
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = span)]
    timeout: Duration,
}

/// A control plane whose refusals are complaints.
#[derive(Debug)]
pub(crate) struct Asking(Remote);

/// Runs what asks a control plane.
pub(crate) fn asking(args: &AskArgs, ask: impl AsyncFnOnce(Asking) -> Done) -> Done {
    let remote = Remote::new(settings(args)?, args.timeout)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ask(Asking(remote)))
}

/// The file of a person, and its name for people.
fn file() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = named("XDG_CONFIG_HOME").or_else(|| named("HOME").map(|home| home.join(".config")))?;
    Some(folder.join("nixfleet"))
}

fn settings(args: &AskArgs) -> Result<settings::Settings, Complaint> {
    let AskArgs { server, token_file, pin, ca, timeout: _ } = args;
    let said = || {
        let token = token_file.as_deref().map(Token::read).transpose()?;
        let line = Said { server: server.clone(), token, pin: pin.clone(), ca: ca.clone() };
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let environment = Said {
            server: variable("NIXFLEET_SERVER"),
            token: variable("NIXFLEET_TOKEN").map(|token| Token::new(&token)).transpose()?,
            pin: variable("NIXFLEET_PIN"),
            ca: variable("NIXFLEET_CA").map(PathBuf::from),
        };
        let kept = || file().map_or(Ok(None), |path| Said::read(&path));
        settings::settle(line, environment, kept)
    };
    said().map_err(|not_set| not_settled(&not_set))
}

fn not_settled(not_set: &NotSet) -> Complaint {
    let path = file().map_or_else(|| "~/.config/nixfleet".to_owned(), |path| path.display().to_string());
    let complaint = match not_set {
        NotSet::File(..) | NotSet::Exposed { .. } | NotSet::Line { .. } => Complaint::refused(chain(not_set)),
        NotSet::NoServer
        | NotSet::NoToken(_)
        | NotSet::Server(_)
        | NotSet::Plain(_)
        | NotSet::Token
        | NotSet::Pin(..)
        | NotSet::Both => Complaint::usage(chain(not_set)),
    };
    match not_set {
        NotSet::NoServer => complaint.hint(format!(
            "say `--server https://HOST:8443`, set NIXFLEET_SERVER, or write it into `{path}` (mode 0600):\n\n  \
             server = \"https://HOST:8443\"\n  token = \"nixfleet_…\"\n  pin = \"sha256//…\""
        )),
        NotSet::NoToken(_) => complaint
            .hint("`nixfleet-control-plane token add NAME --role viewer|operator` makes one, where the server runs")
            .hint(format!(
                "put it into NIXFLEET_TOKEN, into a file for `--token-file`, or as `token` into `{path}` (mode 0600), \
                 which counts for the server that it names and for no other"
            )),
        NotSet::Exposed { path, .. } => {
            complaint.hint(format!("`chmod 600 {}`; if others were here, make a new token", path.display()))
        }
        NotSet::Server(_)
        | NotSet::Plain(_)
        | NotSet::Token
        | NotSet::Pin(..)
        | NotSet::Both
        | NotSet::File(..)
        | NotSet::Line { .. } => complaint,
    }
}

/// What a person is told when something is not answered.
pub(crate) fn complain(error: &NotAnswered) -> Complaint {
    match error {
        NotAnswered::Problem(problem) => refused(problem),
        NotAnswered::TooSlow { .. } => {
            Complaint::silent(error.said()).hint("`--timeout 5m` gives it longer")
        }
        NotAnswered::Foreign { .. } => Complaint::silent(error.said()).hint(
            "is this the address of a `nixfleet-control-plane`, and are both of about the same version? Something may \
             stand in between",
        ),
        NotAnswered::Unreachable { at, .. } => match error.tls_fault() {
            Some(_) => Complaint::silent(error.said()).hint(
                "a server is known by its certificate (`--ca FILE` names who vouches for it), or by its key: \
                 `--pin sha256//…`, as `nixfleet-control-plane certificate` printed it",
            ),
            None => Complaint::silent(error.said())
                .hint(format!("is `nixfleet-control-plane run` running there, and is {at} what it listens at?")),
        },
    }
}

fn refused(problem: &Problem) -> Complaint {
    let complaint = match problem.short_kind() {
        // It is there, and cannot do it now.
        "unavailable" | "too-slow" => Complaint::silent(&problem.detail),
        "not-found" => Complaint::not_found(&problem.detail),
        _ => Complaint::refused(&problem.detail),
    };
    match &problem.hint {
        Some(hint) => complaint.hint(hint),
        None => complaint,
    }
}

impl Asking {
    /// The client below, for what goes on for long.
    pub(crate) fn remote(&self) -> &Remote {
        &self.0
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Complaint> {
        self.0.get(path).await.map_err(|error| complain(&error))
    }

    /// What is there, if it is there.
    pub(crate) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Complaint> {
        match self.0.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(complain(&error)),
        }
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Complaint> {
        self.0.post(path, body).await.map_err(|error| complain(&error))
    }

    pub(crate) async fn pages<T: DeserializeOwned>(
        &self,
        path: &str,
        after: &str,
        most: usize,
    ) -> Result<(Vec<T>, bool), Complaint> {
        self.0.pages(path, after, most).await.map_err(|error| complain(&error))
    }

    /// A host, or that there is none and which one may be meant.
    pub(crate) async fn host(&self, name: &str) -> Result<HostView, Complaint> {
        if let Ok(name) = name.parse::<HostName>()
            && let Some(host) = self.find(&format!("/v1/hosts/{name}")).await?
        {
            return Ok(host);
        }
        let complaint = Complaint::refused(format!("no release that is served names a host `{name}`"));
        let (hosts, _) = self.pages::<HostView>("/v1/hosts", "", MEANT_AMONG).await?;
        let meant = nearest(name, hosts.iter().map(|host| host.name.as_str()));
        Err(complaint.hint(match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "`nixfleet hosts` lists them".to_owned(),
        }))
    }

    /// A channel of the fleet, or that there is none and which one may be meant.
    pub(crate) async fn channel(&self, name: &str) -> Result<ChannelName, Complaint> {
        let fleet: FleetView = self.get("/v1/fleet").await?;
        let known: Vec<&ChannelName> = fleet.releases.iter().map(|release| &release.channel).collect();
        if let Some(channel) = known.iter().find(|channel| channel.as_str() == name) {
            return Ok((*channel).clone());
        }
        let complaint = Complaint::refused(format!("there is no release of a channel `{name}`"));
        Err(complaint.hint(match (nearest(name, known.iter().map(|channel| channel.as_str())), &known[..]) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, []) => "`nixfleet release push` brings the first one".to_owned(),
            (None, known) => {
                let known: Vec<_> = known.iter().map(|channel| channel.as_str()).collect();
                format!("there are releases of {}", known.join(", "))
            }
        }))
    }
}
