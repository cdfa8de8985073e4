//! Calls in two phases: an acknowledgement at once, the outcome later.
//!
//! Over OpenClaw frames the outcome is a second response to the same call. Over JSON-RPC it is field `final` of the
//! result of the method's wait method, which is called again and again while the field is absent. That works over
//! every transport, and for every method that declares an outcome; over frames it serves calls that found their run
//! started already, which get no second response.

use std::{fmt, time::Duration};

use openclaw_schema::{
    client::AgentClient as _,
    contract::{Contract as _, TwoPhase},
    events::EventName,
    methods::{
        agent::{AckStatus, AgentAbortParams, AgentAck, AgentContract, AgentOutcome, AgentParams, RunStatus},
        events::EventsSubscribeParams,
    },
    problem::ParamProblem,
    types::Text,
};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{Instant, sleep};

use crate::{
    Client, ErrorCode, RunEvents,
    error::{Error, TimeoutKind, TransportKind},
    events::EventStream,
    frames::{self, OutcomeReceiver},
};

/// How long one wait asks the gateway to hold the call: short enough for proxies in between, which often cut
/// at 30 or 60 seconds.
const WAIT: Duration = Duration::from_secs(20);
/// The least time from one wait to the next, so that a gateway which answers early is not asked in a spin.
const WAIT_INTERVAL: Duration = Duration::from_millis(100);

/// The two-phase declaration of `agent`.
const AGENT: TwoPhase = {
    let methods = AgentContract::METHODS;
    let mut index = 0;
    loop {
        match methods[index].two_phase {
            Some(two_phase) => break two_phase,
            None => index += 1,
        }
    }
};

/// A new idempotency key: a UUID of version 7, which sorts by the time of its making.
#[must_use]
pub fn new_idempotency_key() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The params of a run, with an idempotency key made.
///
/// ```
/// # fn main() -> Result<(), openclaw_client::Error> {
/// let params = openclaw_client::AgentRequest::new("hello").session_key("main").build()?;
/// assert_eq!(params.message.as_str(), "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "`build` makes the params"]
pub struct AgentRequest {
    message: String,
    idempotency_key: String,
    agent_id: Option<String>,
    session_key: Option<String>,
}

impl AgentRequest {
    /// Says `message` to the default agent.
    pub fn new(message: impl Into<String>) -> Self {
        let idempotency_key = new_idempotency_key();
        Self { message: message.into(), idempotency_key, agent_id: None, session_key: None }
    }

    /// Names the run, instead of the key that was made. A repeat with the same key starts nothing.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = key.into();
        self
    }

    /// Which agent to speak to.
    pub fn agent_id(mut self, agent: impl Into<String>) -> Self {
        self.agent_id = Some(agent.into());
        self
    }

    /// Which session to speak in.
    pub fn session_key(mut self, session: impl Into<String>) -> Self {
        self.session_key = Some(session.into());
        self
    }

    /// The params. Fields that have no setter here are absent, and can be set on the result.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when a text is empty or too long.
    pub fn build(self) -> Result<AgentParams, Error> {
        Ok(AgentParams {
            message: text("/message", self.message)?,
            idempotency_key: text("/idempotencyKey", self.idempotency_key)?,
            agent_id: self.agent_id.map(|agent| text("/agentId", agent)).transpose()?,
            session_key: self.session_key.map(|session| text("/sessionKey", session)).transpose()?,
            model: None,
            timeout: None,
            thinking: None,
            deliver: None,
            extra_system_prompt: None,
            label: None,
        })
    }
}

fn text<const MIN: usize, const MAX: usize>(path: &str, value: String) -> Result<Text<MIN, MAX>, Error> {
    Text::new(value).map_err(|reason| {
        let problem = ParamProblem { path: path.to_owned(), reason, allowed: Vec::new(), nearest: None };
        Error::invalid_params(AgentContract::METHODS[0].name, problem)
    })
}

/// A run that was started with [`Client::run_agent`].
///
/// Dropping it does not end the run: [`AgentRun::abort`] does.
pub struct AgentRun {
    client: Client,
    ack: AgentAck,
    started: Started,
    events: RunEvents,
}

impl fmt::Debug for AgentRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentRun").field("ack", &self.ack).finish_non_exhaustive()
    }
}

impl AgentRun {
    pub(crate) async fn start(client: &Client, params: AgentParams) -> Result<Self, Error> {
        let mut events = if client.has_subscriptions() {
            let wanted = EventsSubscribeParams {
                events: Some(vec![EventName::Agent, EventName::Chat]),
                run_id: Some(params.idempotency_key.clone()),
                resume_from: None,
            };
            // Before the call, so that no event is missed.
            let run_id = params.idempotency_key.to_string();
            RunEvents::from_stream(EventStream::open(client.clone(), &wanted).await?, run_id)
        } else {
            RunEvents::unavailable()
        };
        let method = AgentContract::METHODS[0].name;
        let run_id = params.idempotency_key.to_string();
        let params = to_raw_value(&params).expect("params serialise");
        let started = start(client, method, &params).await?;
        let ack = match &started {
            Started::Polled(ack) | Started::Pushed(ack, _) => {
                serde_json::from_str(ack.get()).map_err(|problem| Error::bad_result(method, problem))?
            }
            // Frames carry the outcome alone. The key is the run.
            Started::Ended(_) => AgentAck {
                run_id,
                status: AckStatus::Ended,
                session_key: None,
                agent_id: None,
                accepted_at: None,
            },
        };
        if ack.status == AckStatus::Ended {
            // Its events are past.
            events = RunEvents::over();
        }
        Ok(Self { client: client.clone(), ack, started, events })
    }

    /// How the call was received.
    #[must_use]
    pub fn ack(&self) -> &AgentAck {
        &self.ack
    }

    /// The events of the run. The stream ends with the run, and holds about a thousand unread events: who wants
    /// events reads them before, or while, waiting for the outcome.
    pub fn events(&mut self) -> &mut RunEvents {
        &mut self.events
    }

    /// Waits until the run has ended.
    ///
    /// There is no limit but the run's own, which is its param `timeout`.
    ///
    /// # Errors
    ///
    /// As any call. A run that failed is no error here: [`AgentOutcome::status`] says so.
    pub async fn outcome(&self) -> Result<AgentOutcome, Error> {
        let outcome = match &self.started {
            Started::Ended(outcome) => outcome.clone(),
            Started::Pushed(_, outcome) => match pushed(&self.client, outcome.clone()).await {
                Some(outcome) => outcome?,
                None => wait_for_final(&self.client, AGENT.wait, &self.ack.run_id).await?,
            },
            Started::Polled(_) => wait_for_final(&self.client, AGENT.wait, &self.ack.run_id).await?,
        };
        serde_json::from_str(outcome.get()).map_err(|problem| Error::bad_result(AGENT.wait, problem))
    }

    /// Ends the run. Answers whether this ended it; `false` when it had ended already.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn abort(&self) -> Result<bool, Error> {
        let run_id =
            Text::new(self.ack.run_id.clone()).map_err(|problem| Error::bad_result("agent", problem))?;
        Ok(self.client.agent_abort(AgentAbortParams { run_id }).await?.aborted)
    }
}

/// Calls `method`, hands its acknowledgement to `on_ack`, and waits for the outcome.
pub(crate) async fn call_final(
    client: &Client,
    method: &str,
    wait: &str,
    params: Box<RawValue>,
    on_ack: impl FnOnce(&RawValue),
) -> Result<Box<RawValue>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Ack {
        run_id: String,
    }
    let ack = match start(client, method, &params).await? {
        Started::Ended(outcome) => return Ok(outcome),
        Started::Pushed(ack, outcome) => {
            on_ack(&ack);
            match pushed(client, outcome).await {
                Some(outcome) => return outcome,
                None => ack,
            }
        }
        Started::Polled(ack) => {
            on_ack(&ack);
            ack
        }
    };
    let ack: Ack = serde_json::from_str(ack.get()).map_err(|problem| Error::bad_result(method, problem))?;
    wait_for_final(client, wait, &ack.run_id).await
}

/// Waits until the run has ended, or nothing can be learnt of it.
pub(crate) async fn run_ended(client: Client, run_id: String) {
    let _ = wait_for_final(&client, AGENT.wait, &run_id).await;
}

/// How a two-phase call was received.
#[derive(Debug)]
enum Started {
    /// With an acknowledgement. The outcome is to be asked for.
    Polled(Box<RawValue>),
    /// With an acknowledgement. The outcome comes by itself.
    Pushed(Box<RawValue>, OutcomeReceiver),
    /// With the outcome: a run of this key has ended already.
    Ended(Box<RawValue>),
}

async fn start(client: &Client, method: &str, params: &RawValue) -> Result<Started, Error> {
    let (answer, outcome) = match client.start(method, params).await {
        Ok(started) => started,
        Err(error) => return failed_outcome(error).map(Started::Ended),
    };
    let Some(outcome) = outcome else { return Ok(Started::Polled(answer)) };
    if outcome.borrow().is_some() || outcome.has_changed().is_ok() {
        return Ok(Started::Pushed(answer, outcome));
    }
    let status = frames::status_of(&answer);
    let ended = status
        .is_some_and(|status| serde_json::from_value::<RunStatus>(serde_json::Value::String(status)).is_ok());
    Ok(if ended { Started::Ended(answer) } else { Started::Polled(answer) })
}

/// Waits for a second response. Nothing when the connection broke and another one takes its place: the outcome is
/// then to be asked for.
async fn pushed(client: &Client, mut outcome: OutcomeReceiver) -> Option<Result<Box<RawValue>, Error>> {
    let outcome = match outcome.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone(),
        Err(_) => None,
    };
    match outcome {
        Some(Ok(outcome)) => Some(Ok(outcome)),
        Some(Err(refusal)) => Some(failed_outcome(Error::refused(&refusal))),
        None if client.reconnects() => None,
        None => Some(Err(client.ended().map(Error::in_flight).unwrap_or_else(|| {
            let kind = TransportKind::Closed { code: None };
            Error::transport(kind, client.url(), "it is over").in_flight()
        }))),
    }
}

/// Over frames a run that failed is answered with an error, and with its outcome beside it. That outcome, with the
/// error in field `error`; the error itself when it stands alone.
fn failed_outcome(error: Error) -> Result<Box<RawValue>, Error> {
    let Error::Refused(refusal) = &error else { return Err(error) };
    let data = refusal.data.as_deref().and_then(|data| serde_json::from_str(data.get()).ok());
    let Some(serde_json::Value::Object(mut data)) = data else { return Err(error) };
    let Some(serde_json::Value::Object(mut outcome)) = data.remove("payload") else { return Err(error) };
    if !outcome.get("status").is_some_and(serde_json::Value::is_string) {
        return Err(error);
    }
    data.insert("message".to_owned(), refusal.message.clone().into());
    outcome.entry("error").or_insert(serde_json::Value::Object(data));
    Ok(to_raw_value(&outcome).expect("JSON serialises"))
}

async fn wait_for_final(client: &Client, wait: &str, run_id: &str) -> Result<Box<RawValue>, Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        run_id: &'a str,
        timeout_ms: u64,
    }
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default, rename = "final")]
        outcome: Option<Box<RawValue>>,
        /// Stock gateways have no `final`: there the end of a run shows in these two.
        #[serde(default)]
        status: String,
        #[serde(default, rename = "endedAt")]
        ended_at: Option<serde::de::IgnoredAny>,
    }
    // Half of the limit at most: the gateway has the other half to answer in.
    let hold = client.call_timeout().map_or(WAIT, |limit| WAIT.min(limit / 2));
    let timeout_ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
    loop {
        let asked = Instant::now();
        let params = to_raw_value(&Params { run_id, timeout_ms }).expect("a text and a number serialise");
        match client.call(wait, params).await {
            Ok(result) => {
                let answer: Answer =
                    serde_json::from_str(result.get()).map_err(|problem| Error::bad_result(wait, problem))?;
                if let Some(outcome) = answer.outcome {
                    return Ok(outcome);
                }
                if matches!(answer.status.as_str(), "ok" | "error") || answer.ended_at.is_some() {
                    return Ok(result);
                }
            }
            // The run goes on; only this wait is over.
            Err(error) if error.code() == Some(ErrorCode::DeadlineExceeded) => {}
            // So it does while the connection is made anew.
            Err(
                Error::Transport { kind: TransportKind::Closed { .. }, .. }
                | Error::Timeout { what: TimeoutKind::Reconnect, .. },
            ) if client.reconnects() && client.ended().is_none() => {}
            Err(error) => return Err(error),
        }
        sleep(WAIT_INTERVAL.saturating_sub(asked.elapsed())).await;
    }
}
