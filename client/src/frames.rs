//! OpenClaw frames under jsonrpsee's client core: what the core sends becomes `req` frames, and `res` and `event`
//! frames become what the core reads (wire.md section 2).
//!
//! Two things exist in JSON-RPC only, and are played here: batches, and the event subscription. A gateway that
//! speaks frames pushes every event unasked, so that subscribing to them costs no call.
//!
//! Nothing that a gateway sends ends the connection: what cannot be read, or belongs to no call, is passed over.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, VecDeque},
};

use jsonrpsee::types::ErrorObjectOwned;
use openclaw_schema::{
    ErrorCode, ErrorData,
    contract::{Contract as _, MethodRecord, SubscriptionRecord},
    events::EventName,
    methods::events::{EventsContract, EventsSubscribeParams},
};
use serde::{Deserialize, Serialize};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};
use tokio::sync::watch;

/// The method that subscribes to events.
const SUBSCRIBE: MethodRecord = EventsContract::METHODS[0];
/// Its notifications, and the method that ends it.
const SUBSCRIPTION: SubscriptionRecord = match SUBSCRIBE.subscription {
    Some(subscription) => subscription,
    None => panic!("`events.subscribe` is a subscription"),
};
/// The number of errors whose string code has none: JSON-RPC 2.0 section 5.1 leaves it to servers.
const UNNAMED_ERROR: i32 = -32000;
/// The status of an acknowledgement that a second response will follow.
const ACCEPTED: &str = "accepted";

/// The second response to a two-phase call: its payload, or its error.
pub(crate) type Outcome = Result<Box<RawValue>, ErrorObjectOwned>;
/// Receives it; ends without one when none will come.
pub(crate) type OutcomeReceiver = watch::Receiver<Option<Outcome>>;
type OutcomeSender = watch::Sender<Option<Outcome>>;

/// The translation of one connection.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Calls that wait, by the id of their frame.
    pending: HashMap<String, Pending>,
    /// Calls that are about to be sent, and whose second response is wanted.
    wanted: HashMap<String, OutcomeSender>,
    batches: HashMap<u64, Batch>,
    subscriptions: Vec<EventSubscription>,
    /// Events that are handed on as plain notifications too.
    listened: HashSet<String>,
    /// What the core is to read next.
    inbox: VecDeque<String>,
    /// Numbers batches, subscriptions and requests whose response nobody wants.
    next: u64,
    /// The `seq` of the last event; absent when `seq` says nothing about losses.
    last_seq: Option<u64>,
}

#[derive(Debug)]
enum Pending {
    /// The call waits for its response.
    Response {
        /// The id of the JSON-RPC request, as it was written.
        id: Box<RawValue>,
        batch: Option<u64>,
        outcome: Option<OutcomeSender>,
    },
    /// The acknowledgement came; the outcome is to follow.
    Outcome(OutcomeSender),
}

/// Calls whose responses are handed on together.
#[derive(Debug)]
struct Batch {
    missing: usize,
    responses: Vec<String>,
}

#[derive(Debug)]
struct EventSubscription {
    id: u64,
    params: EventsSubscribeParams,
    /// The number of items so far.
    seq: u64,
    /// Events lost since the last item.
    missed: u64,
}

/// A request or notification, as the core writes it.
#[derive(Deserialize)]
struct Outgoing<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct RequestFrame<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
}

/// A `req` frame.
pub(crate) fn request_frame(id: &str, method: &str, params: Option<&RawValue>) -> String {
    let frame = RequestFrame { kind: "req", id, method, params };
    serde_json::to_string(&frame).expect("texts and JSON serialise")
}

/// A frame of the gateway. Fields that are not known are passed over.
#[derive(Debug, Deserialize)]
pub(crate) struct Incoming<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    /// Any JSON: a gateway echoes what it was sent.
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    ok: Option<bool>,
    #[serde(borrow, default)]
    pub(crate) payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(default)]
    seq: Option<u64>,
}

impl<'a> Incoming<'a> {
    /// The frame in `message`; nothing when it is none.
    pub(crate) fn read(message: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(message).ok()
    }

    /// The payload of event `name`; nothing when it is another frame.
    pub(crate) fn event_payload(&self, name: &str) -> Option<&'a RawValue> {
        let event = self.event.as_deref().filter(|_| self.kind == "event")?;
        self.payload.filter(|_| event == name)
    }

    /// What the response to frame `id` says; nothing when it is another frame.
    pub(crate) fn response_to(&self, id: &str) -> Option<Result<Option<&'a RawValue>, FrameError>> {
        if self.kind != "res" || self.frame_id().as_deref() != Some(id) {
            return None;
        }
        Some(if self.is_ok() { Ok(self.payload) } else { Err(self.frame_error()) })
    }

    fn frame_id(&self) -> Option<Cow<'a, str>> {
        #[derive(Deserialize)]
        struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
        self.id.and_then(|id| serde_json::from_str::<Text<'a>>(id.get()).ok()).map(|text| text.0)
    }

    fn is_ok(&self) -> bool {
        self.ok.unwrap_or(self.error.is_none())
    }

    fn frame_error(&self) -> FrameError {
        self.error.and_then(|error| serde_json::from_str(error.get()).ok()).unwrap_or_default()
    }

    fn is_acknowledgement(&self) -> bool {
        self.is_ok() && self.payload.is_some_and(|payload| status_of(payload).as_deref() == Some(ACCEPTED))
    }

    fn outcome(&self) -> Outcome {
        if self.is_ok() {
            Ok(self.payload.map_or_else(|| RawValue::NULL.to_owned(), ToOwned::to_owned))
        } else {
            Err(self.frame_error().into_object(self.payload))
        }
    }
}

/// Field `status` of a payload, if it has one.
pub(crate) fn status_of(payload: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Status {
        status: String,
    }
    serde_json::from_str::<Status>(payload.get()).ok().map(|payload| payload.status)
}

/// The `error` of a response.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct FrameError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) details: Option<Value>,
    pub(crate) retryable: Option<bool>,
    pub(crate) retry_after_ms: Option<u64>,
}

impl FrameError {
    /// Text `name` of the details.
    pub(crate) fn detail(&self, name: &str) -> Option<&str> {
        self.details.as_ref()?.get(name)?.as_str()
    }

    /// The error object that says the same in JSON-RPC. Details and payload go whole into `data`; those details
    /// that the contract declares stand at their places there too.
    pub(crate) fn into_object(self, payload: Option<&RawValue>) -> ErrorObjectOwned {
        let code = ErrorCode::from_name(&self.code);
        let mut data = Map::new();
        let name = if self.code.is_empty() { "UNKNOWN".to_owned() } else { self.code };
        data.insert("code".to_owned(), name.into());
        data.insert("retryable".to_owned(), self.retryable.unwrap_or(false).into());
        if let Some(after) = self.retry_after_ms {
            data.insert("retryAfterMs".to_owned(), after.into());
        }
        if let Some(details) = self.details {
            for field in ["method", "path", "reason", "allowed", "nearest", "missingScope", "correlationId"] {
                let Some(value) = details.get(field) else { continue };
                data.insert(field.to_owned(), value.clone());
                // Stock gateways use some of these names for other things, and know further scopes.
                if serde_json::from_value::<ErrorData>(Value::Object(data.clone())).is_err() {
                    data.remove(field);
                }
            }
            data.insert("details".to_owned(), details);
        }
        if let Some(payload) = payload {
            let payload = serde_json::from_str(payload.get()).unwrap_or_default();
            data.insert("payload".to_owned(), payload);
        }
        let message =
            if self.message.is_empty() { "the gateway gives no reason".to_owned() } else { self.message };
        ErrorObjectOwned::owned(code.map_or(UNNAMED_ERROR, ErrorCode::number), message, Some(data))
    }
}

impl Frames {
    /// A connection on which `connect` has succeeded. `counted` says whether `seq` counts the events of this
    /// connection alone, without a hole: protocol 3 counts those of other connections too.
    pub(crate) fn new(counted: bool) -> Self {
        Self {
            pending: HashMap::new(),
            wanted: HashMap::new(),
            batches: HashMap::new(),
            subscriptions: Vec::new(),
            listened: HashSet::new(),
            inbox: VecDeque::new(),
            next: 1,
            last_seq: counted.then_some(0),
        }
    }

    /// Wants the second response to the request that will be sent with id `number`.
    pub(crate) fn want_outcome(&mut self, number: u64) -> OutcomeReceiver {
        let (sender, receiver) = watch::channel(None);
        self.wanted.insert(number.to_string(), sender);
        receiver
    }

    /// Hands events of this name on as plain notifications too.
    pub(crate) fn listen(&mut self, event: &str) {
        self.listened.insert(event.to_owned());
    }

    /// The next message for the core.
    pub(crate) fn next(&mut self) -> Option<String> {
        self.inbox.pop_front()
    }

    /// Nothing will come any more.
    pub(crate) fn end(&mut self) {
        self.pending.clear();
        self.wanted.clear();
    }

    /// The frames to send for a message of the core. Some messages are answered here, and leave none.
    pub(crate) fn send(&mut self, message: &str) -> Vec<String> {
        let calls: Vec<Outgoing<'_>> = if message.starts_with('[') {
            serde_json::from_str(message)
        } else {
            serde_json::from_str(message).map(|call| vec![call])
        }
        .expect("the core writes JSON-RPC");
        let batch = message.starts_with('[').then(|| {
            let missing = calls.iter().filter(|call| call.id.is_some()).count();
            let number = self.number();
            self.batches.insert(number, Batch { missing, responses: Vec::with_capacity(missing) });
            number
        });
        calls.iter().filter_map(|call| self.request(call, batch)).collect()
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    fn request(&mut self, call: &Outgoing<'_>, batch: Option<u64>) -> Option<String> {
        let Some(id) = call.id else {
            // Frames have no notifications: the response is passed over.
            let frame_id = format!("n{}", self.number());
            return Some(request_frame(&frame_id, &call.method, call.params));
        };
        if let Some(answer) = self.played(&call.method, call.params) {
            self.respond(id, batch, answer);
            return None;
        }
        // The core's own ids are texts, ours are numbers.
        let frame_id = match id.get().strip_prefix('"').and_then(|id| id.strip_suffix('"')) {
            Some(text) => format!("s{text}"),
            None => id.get().to_owned(),
        };
        let frame = request_frame(&frame_id, &call.method, call.params);
        let outcome = self.wanted.remove(&frame_id);
        self.pending.insert(frame_id, Pending::Response { id: id.to_owned(), batch, outcome });
        Some(frame)
    }

    /// The answer to a call that never leaves this program.
    fn played(&mut self, method: &str, params: Option<&RawValue>) -> Option<Outcome> {
        if method == SUBSCRIBE.name {
            let params = params.map_or("{}", RawValue::get);
            if let Err(problem) = (SUBSCRIBE.params.check)(params) {
                return Some(Err(problem.into_error(method).into()));
            }
            let params = serde_json::from_str(params).expect("the check has read them");
            let id = self.number();
            self.subscriptions.push(EventSubscription { id, params, seq: 0, missed: 0 });
            Some(Ok(raw(&id)))
        } else if method == SUBSCRIPTION.unsubscribe {
            let ids: Vec<u64> =
                params.and_then(|params| serde_json::from_str(params.get()).ok()).unwrap_or_default();
            let before = self.subscriptions.len();
            self.subscriptions.retain(|subscription| !ids.contains(&subscription.id));
            Some(Ok(raw(&(self.subscriptions.len() < before))))
        } else {
            None
        }
    }

    /// Reads a message of the gateway.
    pub(crate) fn receive(&mut self, message: &[u8]) {
        let Some(frame) = Incoming::read(message) else {
            tracing::debug!(bytes = message.len(), "passed over a message that is no frame");
            return;
        };
        match (frame.kind.as_ref(), &frame.event) {
            ("res", _) => self.response(&frame),
            ("event", Some(event)) => self.event(event, frame.seq, frame.payload),
            (kind, _) => tracing::debug!(kind, "passed over a frame of an unknown type"),
        }
    }

    fn response(&mut self, frame: &Incoming<'_>) {
        let known = frame.frame_id().and_then(|id| Some((self.pending.remove(id.as_ref())?, id)));
        match known {
            None => tracing::debug!("passed over a response to no call"),
            Some((Pending::Outcome(outcome), _)) => {
                // Nobody may wait any more.
                outcome.send_replace(Some(frame.outcome()));
            }
            Some((Pending::Response { id, batch, outcome }, frame_id)) => {
                if let Some(outcome) = outcome.filter(|_| frame.is_acknowledgement()) {
                    self.pending.insert(frame_id.into_owned(), Pending::Outcome(outcome));
                }
                self.respond(&id, batch, frame.outcome());
            }
        }
    }

    fn respond(&mut self, id: &RawValue, batch: Option<u64>, answer: Outcome) {
        let response = match answer {
            Ok(result) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
            Err(error) => {
                let error = serde_json::to_string(&error).expect("error objects serialise");
                format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
            }
        };
        let Some(number) = batch else { return self.inbox.push_back(response) };
        let Some(batch) = self.batches.get_mut(&number) else { return };
        batch.responses.push(response);
        batch.missing -= 1;
        if batch.missing == 0 {
            let responses = batch.responses.join(",");
            self.batches.remove(&number);
            self.inbox.push_back(format!("[{responses}]"));
        }
    }

    fn event(&mut self, event: &str, seq: Option<u64>, payload: Option<&RawValue>) {
        #[derive(Serialize)]
        struct Item<'a> {
            event: &'a str,
            seq: u64,
            payload: &'a RawValue,
            #[serde(skip_serializing_if = "Option::is_none")]
            missed: Option<u64>,
        }
        if let (Some(last), Some(seq)) = (&mut self.last_seq, seq) {
            let lost = seq.saturating_sub(last.saturating_add(1));
            *last = seq.max(*last);
            if lost > 0 {
                tracing::warn!(lost, "events of the gateway were lost");
            }
            for subscription in &mut self.subscriptions {
                subscription.missed = subscription.missed.saturating_add(lost);
            }
        }
        let payload = payload.unwrap_or(RawValue::NULL);
        if self.listened.contains(event) {
            let name = raw(&event);
            self.inbox.push_back(format!(r#"{{"jsonrpc":"2.0","method":{name},"params":{payload}}}"#));
        }
        for subscription in
            self.subscriptions.iter_mut().filter(|subscription| subscription.wants(event, payload))
        {
            subscription.seq += 1;
            let missed = Some(std::mem::take(&mut subscription.missed)).filter(|missed| *missed > 0);
            let item = raw(&Item { event, seq: subscription.seq, payload, missed });
            let (method, id) = (SUBSCRIPTION.notification, subscription.id);
            self.inbox.push_back(format!(
                r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"subscription":{id},"result":{item}}}}}"#
            ));
        }
    }
}

impl EventSubscription {
    fn wants(&self, event: &str, payload: &RawValue) -> bool {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct OfRun<'a> {
            #[serde(borrow)]
            run_id: Cow<'a, str>,
        }
        if self.params.events.as_ref().is_some_and(|wanted| !wanted.iter().any(|name| name.name() == event)) {
            return false;
        }
        let Some(run) = &self.params.run_id else { return true };
        let of_runs = [EventName::Agent, EventName::Chat].iter().any(|name| name.name() == event);
        !of_runs
            || serde_json::from_str::<OfRun<'_>>(payload.get())
                .is_ok_and(|payload| payload.run_id == run.as_str())
    }
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("texts, numbers and JSON serialise")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(frames: &mut Frames, frame: &Value) -> Vec<Value> {
        frames.receive(frame.to_string().as_bytes());
        let mut messages = Vec::new();
        while let Some(message) = frames.next() {
            messages.push(serde_json::from_str(&message).expect("the core reads JSON"));
        }
        messages
    }

    fn sent(frames: &mut Frames, message: &Value) -> Vec<Value> {
        let frames = frames.send(&message.to_string());
        frames.iter().map(|frame| serde_json::from_str(frame).expect("frames are JSON")).collect()
    }

    #[test]
    fn a_call_becomes_a_frame_and_its_response_an_answer() {
        let mut frames = Frames::new(true);
        let call = json!({ "jsonrpc": "2.0", "id": 7, "method": "health", "params": { "a": [1] } });
        assert_eq!(
            sent(&mut frames, &call),
            [json!({ "type": "req", "id": "7", "method": "health", "params": { "a": [1] } })]
        );
        let response = json!({ "type": "res", "id": "7", "ok": true, "payload": { "b": 2 }, "newer": 1 });
        assert_eq!(
            read(&mut frames, &response),
            [json!({ "jsonrpc": "2.0", "id": 7, "result": { "b": 2 } })]
        );
        assert_eq!(read(&mut frames, &response), [] as [Value; 0], "a second one belongs to no call");
    }

    #[test]
    fn an_error_keeps_code_details_and_payload() {
        let mut frames = Frames::new(true);
        sent(&mut frames, &json!({ "jsonrpc": "2.0", "id": 7, "method": "agent" }));
        let answers = read(
            &mut frames,
            &json!({
                "type": "res", "id": "7", "ok": false, "payload": { "runId": "k", "status": "error" },
                "error": {
                    "code": "FORBIDDEN", "message": "missing scope: operator.talk",
                    "details": { "code": "MISSING_SCOPE", "missingScope": "operator.talk", "method": "agent" },
                    "retryable": true, "retryAfterMs": 5,
                },
            }),
        );
        assert_eq!(answers[0]["error"]["code"], -32021);
        assert_eq!(
            answers[0]["error"]["data"],
            json!({
                "code": "FORBIDDEN", "retryable": true, "retryAfterMs": 5, "method": "agent",
                "details": { "code": "MISSING_SCOPE", "missingScope": "operator.talk", "method": "agent" },
                "payload": { "runId": "k", "status": "error" },
            })
        );
        sent(&mut frames, &json!({ "jsonrpc": "2.0", "id": 8, "method": "agent" }));
        let bare = read(&mut frames, &json!({ "type": "res", "id": "8", "ok": false }));
        assert_eq!(bare[0]["error"]["message"], "the gateway gives no reason");
        assert_eq!(bare[0]["error"]["data"]["code"], "UNKNOWN");
    }

    #[test]
    fn a_batch_is_answered_when_its_last_call_is() {
        let mut frames = Frames::new(true);
        let batch = json!([
            { "jsonrpc": "2.0", "id": "0", "method": "a" },
            { "jsonrpc": "2.0", "id": "1", "method": "b" },
        ]);
        let requests = sent(&mut frames, &batch);
        assert_eq!((&requests[0]["id"], &requests[1]["id"]), (&json!("s0"), &json!("s1")));
        assert!(
            read(&mut frames, &json!({ "type": "res", "id": "s1", "ok": true, "payload": 2 })).is_empty()
        );
        let answers = read(&mut frames, &json!({ "type": "res", "id": "s0", "ok": true }));
        assert_eq!(
            answers,
            [json!([
                { "jsonrpc": "2.0", "id": "1", "result": 2 },
                { "jsonrpc": "2.0", "id": "0", "result": null },
            ])]
        );
        assert!(frames.batches.is_empty() && frames.pending.is_empty());
    }

    #[test]
    fn the_second_response_reaches_who_wants_it() {
        let mut frames = Frames::new(true);
        let outcome = frames.want_outcome(7);
        sent(&mut frames, &json!({ "jsonrpc": "2.0", "id": 7, "method": "agent" }));
        let ack = json!({ "type": "res", "id": "7", "ok": true, "payload": { "status": "accepted" } });
        assert_eq!(read(&mut frames, &ack)[0]["result"], json!({ "status": "accepted" }));
        assert!(outcome.borrow().is_none());
        assert!(read(&mut frames, &json!({ "type": "res", "id": "7", "ok": true, "payload": 5 })).is_empty());
        assert_eq!(
            outcome.borrow().as_ref().map(|done| done.as_ref().map(|r| r.get()).ok()),
            Some(Some("5"))
        );

        let single = frames.want_outcome(8);
        sent(&mut frames, &json!({ "jsonrpc": "2.0", "id": 8, "method": "agent" }));
        read(
            &mut frames,
            &json!({ "type": "res", "id": "8", "ok": true, "payload": { "status": "in_flight" } }),
        );
        assert!(single.has_changed().is_err(), "none will come");
    }

    #[test]
    fn events_are_numbered_for_each_subscriber_and_gaps_are_counted() {
        let mut frames = Frames::new(true);
        let subscribe = |frames: &mut Frames, id: u64, params: Value| {
            let call = json!({ "jsonrpc": "2.0", "id": id.to_string(), "method": "events.subscribe", "params": params });
            assert!(sent(frames, &call).is_empty(), "no call leaves");
            let answer: Value =
                serde_json::from_str(&frames.next().expect("it is answered")).expect("it is JSON");
            answer["result"].clone()
        };
        let all = subscribe(&mut frames, 1, json!({}));
        let run = subscribe(&mut frames, 2, json!({ "events": ["agent"], "runId": "k" }));
        let event = |name: &str, seq: u64, payload: Value| json!({ "type": "event", "event": name, "seq": seq, "payload": payload });
        let item = |message: &Value| {
            (message["params"]["subscription"].clone(), message["params"]["result"].clone())
        };
        let first = read(&mut frames, &event("tick", 1, json!({ "ts": 1 })));
        assert_eq!(
            first.iter().map(item).collect::<Vec<_>>(),
            [(all.clone(), json!({ "event": "tick", "seq": 1, "payload": { "ts": 1 } }))]
        );
        assert_eq!(first[0]["method"], "events.event");
        assert_eq!(read(&mut frames, &event("agent", 4, json!({ "runId": "other" }))).len(), 1);
        let both = read(&mut frames, &event("agent", 5, json!({ "runId": "k" })));
        assert_eq!(
            item(&both[0]),
            (all.clone(), json!({ "event": "agent", "seq": 3, "payload": { "runId": "k" } }))
        );
        assert_eq!(
            item(&both[1]),
            (run, json!({ "event": "agent", "seq": 1, "payload": { "runId": "k" }, "missed": 2 }))
        );
        let unsubscribe =
            json!({ "jsonrpc": "2.0", "id": "3", "method": "events.unsubscribe", "params": [all] });
        assert!(sent(&mut frames, &unsubscribe).is_empty());
        assert!(frames.next().is_some_and(|answer| answer.contains("true")));
        assert!(read(&mut frames, &event("tick", 6, json!({}))).is_empty());
    }

    #[test]
    fn protocol_3_counts_for_all_connections_so_that_gaps_say_nothing() {
        let mut frames = Frames::new(false);
        frames.send(r#"{"jsonrpc":"2.0","id":"1","method":"events.subscribe","params":{}}"#);
        frames.next();
        for seq in [2, 12] {
            let items = read(&mut frames, &json!({ "type": "event", "event": "tick", "seq": seq }));
            assert_eq!(items[0]["params"]["result"].get("missed"), None);
        }
    }

    #[test]
    fn what_is_no_frame_for_anybody_is_passed_over() {
        let mut frames = Frames::new(true);
        sent(&mut frames, &json!({ "jsonrpc": "2.0", "id": 7, "method": "a" }));
        for text in [
            "",
            "{",
            "[1,2]",
            "null",
            "\"x\"",
            r#"{"type":7}"#,
            r#"{"type":"later"}"#,
            r#"{"type":"event"}"#,
            r#"{"type":"res"}"#,
            r#"{"type":"res","id":7,"ok":true}"#,
            r#"{"type":"res","id":"invalid","ok":false}"#,
            r#"{"type":"res","id":"9","ok":true}"#,
            r#"{"type":"req","id":"7","method":"a"}"#,
        ] {
            frames.receive(text.as_bytes());
            assert_eq!(frames.next(), None, "{text}");
        }
        assert_eq!(frames.pending.len(), 1);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            prop_oneof![
                Just("7"),
                Just("res"),
                Just("event"),
                Just("accepted"),
                Just("tick"),
                Just("\"\\\u{e9}")
            ]
            .prop_map(Value::from),
        ];
        let names = prop_oneof![
            Just("type"),
            Just("id"),
            Just("ok"),
            Just("payload"),
            Just("error"),
            Just("event"),
            Just("seq"),
            Just("code"),
            Just("message"),
            Just("details"),
            Just("status"),
            Just("runId"),
            Just("missingScope"),
        ];
        leaf.prop_recursive(3, 24, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((names.clone(), inner), 0..6).prop_map(|members| {
                    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
                }),
            ]
        })
    }

    fn feed(messages: &[Vec<u8>]) -> Result<(), TestCaseError> {
        let mut frames = Frames::new(true);
        let _outcome = frames.want_outcome(7);
        frames.send(r#"{"jsonrpc":"2.0","id":7,"method":"agent","params":{}}"#);
        frames.send(r#"[{"jsonrpc":"2.0","id":"1","method":"a"},{"jsonrpc":"2.0","id":"2","method":"b"}]"#);
        frames.send(r#"{"jsonrpc":"2.0","id":"3","method":"events.subscribe","params":{"runId":"7"}}"#);
        frames.listen("tick");
        for message in messages {
            frames.receive(message);
            while let Some(message) = frames.next() {
                prop_assert!(
                    serde_json::from_str::<Value>(&message).is_ok(),
                    "the core could not read {message}"
                );
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_bytes_leave_only_json_for_the_core(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..4)) {
            feed(&messages)?;
        }

        #[test]
        fn any_frames_leave_only_json_for_the_core(
            messages in prop::collection::vec((any_json(), any_json(), any_json(), any::<bool>(), any::<bool>()), 0..6)
        ) {
            let messages: Vec<Vec<u8>> = messages
                .into_iter()
                .map(|(payload, error, seq, ok, event)| {
                    let kind = if event { "event" } else { "res" };
                    json!({ "type": kind, "id": "7", "ok": ok, "event": "tick", "payload": payload, "error": error, "seq": seq })
                        .to_string()
                        .into_bytes()
                })
                .collect();
            feed(&messages)?;
        }

        #[test]
        fn any_json_leaves_only_json_for_the_core(messages in prop::collection::vec(any_json(), 0..4)) {
            let messages: Vec<Vec<u8>> = messages.into_iter().map(|message| message.to_string().into_bytes()).collect();
            feed(&messages)?;
        }
    }
}
