//! `events.*`: the one subscription through which JSON-RPC clients receive the gateway's events.

use jsonrpsee::{core::SubscriptionResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    RpcError, contract,
    contract::Examples,
    events::EventName,
    types::{SubscriptionId, Text},
};

/// Params of `events.subscribe`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventsSubscribeParams {
    /// Only these events; all that the caller's scopes allow when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<EventName>>,
    /// Only `agent` and `chat` events of this run. Other events are not touched by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Text<1, 256>>,
    /// With `runId`: begins behind this event of the run, 0 for its first. It is the `position` of the last item that was
    /// received. What is kept of the run is sent first: its newest 256 KiB of events, up to a minute after its end. The
    /// call is refused when nothing is kept of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_from: Option<u64>,
}

/// One event, as the subscription sends it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventItem {
    /// The name of the event; names that a client does not know are to be passed over.
    pub event: String,
    /// Counts the items of this subscription from 1, without a hole.
    pub seq: u64,
    /// The payload; its type is that of the event.
    pub payload: Value,
    /// The position of the event among those of its run, counted from 1 without a hole. Only of `agent` and `chat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// How many events were lost just before this one, because the subscriber took them too slowly or came too late. A
    /// subscription to one run loses those alone that are kept no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

/// The gateway's events.
#[contract(group = "Events")]
#[rpc(server, client, namespace = "events", namespace_separator = ".")]
pub trait Events {
    /// Sends the gateway's events as they happen.
    ///
    /// Each item carries the event's name, a sequence number without holes, and the payload. An event that
    /// asks for a scope which the caller lacks is left out. A subscriber that stops reading is disconnected.
    #[subscription(name = "subscribe" => "event", unsubscribe = "unsubscribe", item = EventItem, with_extensions)]
    #[meta(scope = "none", since = "0.1.0", errors(NotFound), examples = events_subscribe)]
    async fn events_subscribe(&self, params: EventsSubscribeParams) -> SubscriptionResult;
}

fn events_subscribe() -> Examples<EventsSubscribeParams, SubscriptionId> {
    let params = EventsSubscribeParams {
        events: Some(vec![EventName::Tick, EventName::Agent]),
        ..EventsSubscribeParams::default()
    };
    Examples::success("ticks and runs", params, SubscriptionId::Number(4_021_882_117))
        .invalid("an event that does not exist", json!({ "events": ["tik"] }))
        .refused(
            "the past of a run of which nothing is kept",
            json!({ "runId": "nothing", "resumeFrom": 0 }),
            RpcError::not_found("/runId", "no events of run `nothing` are kept; agent.wait has its outcome"),
        )
}
