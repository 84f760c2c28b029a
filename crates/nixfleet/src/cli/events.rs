//! `nixfleet events`: the control plane's log, as it is or as it grows.

use clap::Args;
use nixfleet::remote::live::{Live, Next};
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::time::Date;
use nixfleet_core::wire::people::{EventView, FleetView};
use serde::Serialize;
use serde_json::Value;

use super::asking::{AskArgs, Asking, asking, complain};
use super::ui::{self, Complaint, Done, Output};

/// Events that are looked through for the newest ones of a host.
const EVENTS_MAX: usize = 50_000;

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only those of this host
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Only those after this number
    #[arg(long, value_name = "N")]
    after: Option<u64>,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=50_000))]
    limit: u32,
    /// Go on with those that come, until you end it
    #[arg(short, long)]
    follow: bool,
    /// How they are printed; json with `--follow` is one document in each line
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    ask: AskArgs,
}

/// An event as it came, and as it is understood if it is.
#[derive(Debug)]
struct Event {
    whole: Value,
    known: Option<EventView>,
}

impl From<Value> for Event {
    fn from(whole: Value) -> Self {
        let known = serde_json::from_value(whole.clone()).ok();
        Self { whole, known }
    }
}

impl Event {
    fn id(&self) -> u64 {
        self.whole["id"].as_u64().unwrap_or_default()
    }

    fn host(&self) -> Option<&str> {
        self.whole["host"].as_str()
    }

    /// When, about whom, what.
    fn row(&self) -> Vec<String> {
        let about = self.host().or(self.whole["channel"].as_str()).unwrap_or("-").to_owned();
        let (when, what) = match &self.known {
            Some(event) => (Date(event.at_ms).to_string(), event.fact.to_string()),
            // A newer control plane has kinds that are not known here.
            None => ("-".to_owned(), self.whole["fact"].as_str().unwrap_or("something").to_owned()),
        };
        vec![self.id().to_string(), when, about, what]
    }

    fn line(&self) -> String {
        self.row().join("  ")
    }
}

pub(crate) fn events(args: &EventsArgs) -> Done {
    asking(&args.ask, async |server| {
        let host = match &args.host {
            Some(name) => Some(server.host(name).await?.name),
            None => None,
        };
        let fleet: FleetView = server.get("/v1/fleet").await?;
        let events = newest(&server, args, host.as_ref().map(HostName::as_str), fleet.newest_event).await?;
        if !args.follow {
            return print(&events, args.output);
        }
        for event in &events {
            print_one(event, args.output);
        }
        let from = events.last().map_or(args.after.unwrap_or(fleet.newest_event), Event::id);
        follow(&server, from, host.as_ref().map(HostName::as_str), args.output).await
    })
}

async fn newest(
    server: &Asking,
    args: &EventsArgs,
    host: Option<&str>,
    newest: u64,
) -> Result<Vec<Event>, Complaint> {
    if args.limit == 0 {
        return Ok(Vec::new());
    }
    let after = args.after.unwrap_or_else(|| match host {
        // Numbers are dense over the fleet, and not for one host.
        Some(_) => 0,
        None => newest.saturating_sub(u64::from(args.limit)),
    });
    let path = host.map_or_else(|| "/v1/events".to_owned(), |host| format!("/v1/events?host={host}"));
    let most = if args.after.is_some() { args.limit as usize } else { EVENTS_MAX };
    let (mut events, _) = server.pages::<Value>(&path, &after.to_string(), most).await?;
    events.drain(..events.len().saturating_sub(args.limit as usize));
    Ok(events.into_iter().map(Event::from).collect())
}

fn print(events: &[Event], output: Output) -> Done {
    #[derive(Serialize)]
    struct Events<'a> {
        events: Vec<&'a Value>,
    }
    match output {
        Output::Json => {
            return ui::json(&Events { events: events.iter().map(|event| &event.whole).collect() });
        }
        Output::Name => ui::lines(events.iter().map(|event| event.id().to_string())),
        Output::Table => {
            let rows: Vec<_> = events.iter().map(Event::row).collect();
            ui::table(&["EVENT", "WHEN", "ABOUT", "WHAT"], &rows);
        }
    }
    Ok(())
}

fn print_one(event: &Event, output: Output) {
    match output {
        Output::Json => ui::as_it_is(&event.whole.to_string()),
        Output::Name => ui::data(&event.id().to_string()),
        Output::Table => ui::data(&event.line()),
    }
}

async fn follow(server: &Asking, after: u64, host: Option<&str>, output: Output) -> Done {
    let mut live = Live::after(server.remote().clone(), after);
    let mut is_there = true;
    loop {
        match live.next().await.map_err(|error| complain(&error))? {
            Next::Event(event) => {
                let event = Event::from(event);
                if host.is_none_or(|host| event.host() == Some(host)) {
                    print_one(&event, output);
                }
            }
            Next::Broke(why) => {
                if std::mem::replace(&mut is_there, false) {
                    ui::say(&format!("{}; trying again", why.said()));
                }
            }
            Next::Back => {
                if !std::mem::replace(&mut is_there, true) {
                    ui::say("it is there again");
                }
            }
        }
        if ui::is_stdout_gone() {
            return Ok(());
        }
    }
}
