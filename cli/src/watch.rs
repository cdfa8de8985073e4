//! A run while it goes on: its text on a terminal, its events as lines, and what Ctrl-C and a lost connection mean
//! then. The run itself belongs to the gateway: nothing here ends it unless the person says so.

use std::{
    cell::OnceCell,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use openclaw_client::{Event, EventStream};
use openclaw_schema::{
    events::{AgentEvent, AgentStream, EventName},
    methods::{
        agent::AgentMethod,
        events::{EventItem, EventsSubscribeParams},
    },
    types::Text,
};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use crate::{
    connection::{self, Connection},
    error::{CliError, Failure, Fault, Result},
    exit::Exit,
    flags::quoted,
    output::{Printer, printable},
    settings::ClientSettings,
};

/// Time between two pictures of the spinner.
const SPIN: Duration = Duration::from_millis(100);
/// How long the last events of a run may take once its outcome is there.
const LAST_EVENTS: Duration = Duration::from_millis(500);
/// The longest wait that `agent.wait` takes, in milliseconds.
const LONGEST_WAIT_MS: u64 = 86_400_000;

/// How a run is shown while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Not at all, but for its acknowledgement in words.
    Outcome,
    /// Its text on stderr as it is written, after a spinner.
    Text,
    /// Every event as one line of JSON on stdout.
    Lines,
}

impl Show {
    /// What fits the streams of this process. `lines`: as `--stream`.
    pub(crate) fn fitting(lines: bool, printer: &Printer) -> Self {
        if lines {
            Self::Lines
        } else if !printer.is_json() && io::stderr().is_terminal() {
            Self::Text
        } else {
            Self::Outcome
        }
    }
}

/// A call that starts a run.
#[derive(Debug)]
pub(crate) struct RunCall<'a> {
    /// The method.
    pub(crate) method: &'a str,
    /// The method that delivers its outcome.
    pub(crate) wait: &'a str,
    /// Its params.
    pub(crate) params: Box<RawValue>,
    /// How a call to the same gateway begins, for the command that takes up the wait: `openclaw --dev gateway call`.
    pub(crate) command: String,
    /// And how it ends: ` --url ws://127.0.0.1:18789`, or nothing.
    pub(crate) target: String,
}

/// The outcome of a run.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What the gateway answered.
    pub(crate) outcome: Box<RawValue>,
    /// Whether the person ended the run from here.
    pub(crate) is_interrupted: bool,
}

/// One line of `--stream`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Line<'a> {
    /// The run was received.
    Ack { payload: &'a RawValue },
    /// It goes on.
    Event { event: &'a str, payload: &'a serde_json::Value },
    /// Events were lost.
    Gap { missed: u64 },
    /// It has ended.
    Final { payload: &'a RawValue },
}

/// Starts a run, shows it while it goes on, and waits for its outcome.
pub(crate) fn run(
    settings: &ClientSettings,
    call: RunCall<'_>,
    show: Show,
    printer: &Printer,
) -> Result<Ended> {
    let run_id = OnceCell::new();
    let resume = resume_command(&call);
    let done = connection::run_until(settings, async {
        let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| {
            CliError::new(Fault::Cli, "SYSTEM", Exit::Refused, "the system delivers no signals").cause(error)
        })?;
        let opened = async {
            let connection = Connection::open(settings, call.method, &call.params).await?;
            let events = subscribe(&connection, &call.params, show).await?;
            Ok::<_, Failure>((connection, events))
        };
        let (connection, events) = tokio::select! {
            opened = opened => opened?,
            _ = interrupts.recv() => return Err(CliError::interrupted().into()),
        };
        let mut view = View::new(show, *printer);
        let ended = follow(&connection, events, call, &run_id, &mut view, &mut interrupts).await;
        view.clear();
        ended
    });
    done.map_err(|failure| match (failure, run_id.get()) {
        (Failure::Error(error), Some(run_id)) if leaves_the_run(error.exit) => {
            let hint = format!("the run goes on; wait for it with `{}`", resume(run_id));
            Failure::Error(Box::new(error.hint(hint).detail("runId", run_id.as_str())))
        }
        (failure, _) => failure,
    })
}

/// Whether a command that ends so says nothing of the run, which may go on.
fn leaves_the_run(exit: Exit) -> bool {
    matches!(exit, Exit::Interrupted | Exit::Timeout | Exit::Unreachable)
}

/// The command that takes up the wait for a run.
fn resume_command(call: &RunCall<'_>) -> impl Fn(&str) -> String + use<> {
    let (start, target) = (format!("{} {}", call.command, call.wait), call.target.clone());
    move |run_id| format!("{start} runId={} timeoutMs:={LONGEST_WAIT_MS}{target}", quoted(run_id))
}

/// The events of the run that `params` start. None where they are not to be shown, or where nothing is known by
/// which to tell them from others.
async fn subscribe(
    connection: &Connection<'_>,
    params: &RawValue,
    show: Show,
) -> Result<Option<EventStream>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Key {
        idempotency_key: Text<1, 256>,
    }
    if show == Show::Outcome {
        return Ok(None);
    }
    let Ok(Key { idempotency_key }) = serde_json::from_str(params.get()) else { return Ok(None) };
    let wanted = EventsSubscribeParams {
        events: Some(vec![EventName::Agent, EventName::Chat]),
        run_id: Some(idempotency_key),
        resume_from: None,
    };
    match connection.events(wanted).await {
        Ok(events) => Ok(Some(events)),
        // Over HTTP there are none. The text comes with the outcome.
        Err(_) if show == Show::Text => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn follow(
    connection: &Connection<'_>,
    mut events: Option<EventStream>,
    call: RunCall<'_>,
    run_id: &OnceCell<String>,
    view: &mut View,
    interrupts: &mut Signal,
) -> Result<Ended> {
    let (tell, mut told) = oneshot::channel::<Box<RawValue>>();
    let on_ack = |ack: &RawValue| {
        if let Some(run) = RunState::read(ack).run_id {
            let _ = run_id.set(run);
        }
        // It is always listened for.
        let _ = tell.send(ack.to_owned());
    };
    let outcome = connection.call_final(call.method, call.wait, call.params, on_ack);
    tokio::pin!(outcome);
    let mut spin = tokio::time::interval(SPIN);
    let mut is_interrupted = false;
    let mut is_acknowledged = false;
    loop {
        tokio::select! {
            // The order in which they are shown: the acknowledgement, what was sent before the outcome, the outcome.
            biased;
            Ok(ack) = &mut told, if !is_acknowledged => {
                is_acknowledged = true;
                view.ack(&ack)?;
            }
            Some(event) = next(&mut events), if is_acknowledged => match event {
                Ok(event) => view.event(&event)?,
                // The outcome is still to come, or says why not.
                Err(_) => events = None,
            },
            outcome = &mut outcome => {
                let outcome = outcome?;
                match told.try_recv() {
                    Ok(ack) => view.ack(&ack)?,
                    // A run of this key has ended already, and its events are past.
                    Err(_) if !is_acknowledged => events = None,
                    Err(_) => {}
                }
                // The last events may be overtaken by the outcome.
                let last = tokio::time::sleep(LAST_EVENTS);
                tokio::pin!(last);
                while events.is_some() && !view.has_ended() {
                    tokio::select! {
                        event = next(&mut events) => match event {
                            Some(Ok(event)) => view.event(&event)?,
                            _ => break,
                        },
                        () = &mut last => break,
                    }
                }
                view.end(&outcome)?;
                return Ok(Ended { outcome, is_interrupted });
            }
            _ = spin.tick() => view.spin(),
            _ = interrupts.recv() => {
                let Some(run_id) = run_id.get().filter(|_| !is_interrupted && view.can_ask()) else {
                    return Err(CliError::interrupted().into());
                };
                view.clear();
                let answer = tokio::select! {
                    answer = ask("The run goes on in the gateway. Abort it? [y/N] ") => answer,
                    _ = interrupts.recv() => false,
                };
                if !answer {
                    return Err(CliError::interrupted().into());
                }
                abort(connection, run_id).await?;
                is_interrupted = true;
            }
        }
    }
}

/// The next event; never, when there are none.
async fn next(
    events: &mut Option<EventStream>,
) -> Option<std::result::Result<EventItem, openclaw_client::Error>> {
    let Some(stream) = events else { return std::future::pending().await };
    loop {
        match stream.next().await? {
            Ok(Event::Received(item)) => return Some(Ok(item)),
            // The item behind a gap counts it too, and a command does not reconnect.
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

async fn abort(connection: &Connection<'_>, run_id: &str) -> Result<()> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        run_id: &'a str,
    }
    let params = to_raw_value(&Params { run_id }).expect("a text serialises");
    connection.call(AgentMethod::AgentAbort.name(), params).await.map(drop)
}

/// Asks on the terminal. Anything but a yes is a no.
async fn ask(question: &'static str) -> bool {
    let answer = tokio::task::spawn_blocking(move || {
        let mut stderr = io::stderr().lock();
        stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush())?;
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        Ok::<_, io::Error>(line)
    });
    matches!(answer.await, Ok(Ok(line)) if matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// What acknowledgements and outcomes have in common.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RunState {
    pub(crate) run_id: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) summary: Option<String>,
}

impl RunState {
    /// What the JSON says; nothing where it says something else.
    pub(crate) fn read(json: &RawValue) -> Self {
        serde_json::from_str(json.get()).unwrap_or_default()
    }
}

/// What is on the screen.
struct View {
    show: Show,
    printer: Printer,
    /// Turns until the first text comes.
    spinner: Option<ProgressBar>,
    /// Whether the last line of text on stderr is still open.
    is_open: bool,
    /// Which of the two kinds of events have come to their end.
    lifecycle_ended: bool,
    chat_ended: bool,
}

impl View {
    fn new(show: Show, printer: Printer) -> Self {
        let spinner = (show == Show::Text).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} waiting for the answer ({elapsed})");
            bar.with_style(style.expect("the template is sound"))
        });
        Self { show, printer, spinner, is_open: false, lifecycle_ended: false, chat_ended: false }
    }

    /// Whether there is a person to ask.
    fn can_ask(&self) -> bool {
        self.show == Show::Text && io::stdin().is_terminal()
    }

    fn spin(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.tick();
        }
    }

    /// Whether no more events are to come.
    fn has_ended(&self) -> bool {
        self.lifecycle_ended && (self.chat_ended || self.show == Show::Text)
    }

    fn ack(&mut self, ack: &RawValue) -> Result<()> {
        let read = RunState::read(ack);
        if read.status.as_deref().is_some_and(|status| !matches!(status, "accepted" | "in_flight")) {
            // Its events are past.
            (self.lifecycle_ended, self.chat_ended) = (true, true);
        }
        match self.show {
            Show::Lines => self.printer.json(&Line::Ack { payload: ack }),
            Show::Outcome | Show::Text => {
                let ack = read;
                let run = ack.run_id.map(|run| format!(" run {run}")).unwrap_or_default();
                let text = format!("{}:{run}", ack.status.as_deref().unwrap_or("accepted"));
                match &self.spinner {
                    Some(spinner) => spinner.suspend(|| self.printer.note(&text)),
                    None => self.printer.note(&text),
                }
                Ok(())
            }
        }
    }

    fn event(&mut self, item: &EventItem) -> Result<()> {
        let read = |name: &str| item.payload[name].as_str();
        if item.event == EventName::Chat.name() {
            self.chat_ended |= read("state") != Some("delta");
        } else if item.event == EventName::Agent.name() && read("stream") == Some("lifecycle") {
            let phase = item.payload["data"]["phase"].as_str();
            self.lifecycle_ended |= matches!(phase, Some("end" | "error"));
        }
        match self.show {
            Show::Outcome => Ok(()),
            Show::Lines => {
                if let Some(missed) = item.missed {
                    self.printer.json(&Line::Gap { missed })?;
                }
                self.printer.json(&Line::Event { event: &item.event, payload: &item.payload })
            }
            Show::Text => {
                if let Some(missed) = item.missed {
                    self.text(&format!("\n[{missed} events were lost here]\n"));
                }
                if let Some(text) = new_text(item) {
                    self.text(&text);
                }
                Ok(())
            }
        }
    }

    fn end(&mut self, outcome: &RawValue) -> Result<()> {
        self.clear();
        match self.show {
            Show::Lines => self.printer.json(&Line::Final { payload: outcome }),
            Show::Outcome | Show::Text => Ok(()),
        }
    }

    /// Adds to the text on the terminal. If that fails, the outcome still comes.
    fn text(&mut self, text: &str) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
        let text = printable(text);
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        self.is_open = !text.ends_with('\n');
    }

    /// Leaves the cursor at the beginning of a line.
    fn clear(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
        if std::mem::take(&mut self.is_open) {
            self.text("\n");
        }
    }
}

/// The text that an event adds to the answer.
fn new_text(item: &EventItem) -> Option<String> {
    if item.event != EventName::Agent.name() {
        return None;
    }
    let event = AgentEvent::deserialize(&item.payload).ok()?;
    if event.stream != AgentStream::Assistant {
        return None;
    }
    let field = |name: &str| event.data.get(name).and_then(serde_json::Value::as_str);
    if event.data.get("replace").and_then(serde_json::Value::as_bool) == Some(true) {
        return field("text").map(|text| format!("\n{text}"));
    }
    field("delta").filter(|delta| !delta.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(event: &str, payload: serde_json::Value) -> EventItem {
        EventItem { event: event.to_owned(), seq: 1, payload, position: None, missed: None }
    }

    fn agent(stream: &str, data: &serde_json::Value) -> EventItem {
        item("agent", json!({ "runId": "k", "seq": 1, "stream": stream, "ts": 1, "data": data }))
    }

    #[test]
    fn only_what_is_new_of_the_answer_is_shown() {
        for (item, text) in [
            (agent("assistant", &json!({ "text": "hello", "delta": "lo" })), Some("lo")),
            (agent("assistant", &json!({ "text": "hello", "delta": "" })), None),
            (agent("assistant", &json!({ "text": "anew", "delta": "", "replace": true })), Some("\nanew")),
            (agent("lifecycle", &json!({ "phase": "start" })), None),
            (agent("stream of tomorrow", &json!({ "delta": "x" })), None),
            (item("chat", json!({ "deltaText": "lo" })), None),
        ] {
            assert_eq!(new_text(&item).as_deref(), text, "{item:?}");
        }
    }

    #[test]
    fn the_wait_can_be_taken_up_in_a_shell() {
        let call = RunCall {
            method: "agent",
            wait: "agent.wait",
            params: RawValue::from_string("{}".to_owned()).expect("it is JSON"),
            command: "openclaw --dev gateway call".to_owned(),
            target: " --url ws://[::1]:7".to_owned(),
        };
        let resume = resume_command(&call);
        assert_eq!(
            resume("a b"),
            "openclaw --dev gateway call agent.wait runId='a b' timeoutMs:=86400000 --url ws://[::1]:7"
        );
    }
}
