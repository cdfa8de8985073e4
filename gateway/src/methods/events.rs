//! `events.subscribe`.

use std::sync::Arc;

use jsonrpsee::{
    Extensions, PendingSubscriptionSink,
    core::{SubscriptionResult, async_trait},
};
use openclaw_schema::{
    events::EventName, methods::events::EventsSubscribeParams, server::EventsServer, types::Text,
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::broadcast::error::RecvError;

use super::{Handlers, caller};
use crate::events::Event;

/// One item, around a payload that was serialised once for all subscribers. The wire form of `EventItem`.
#[derive(Serialize)]
struct Item<'a> {
    event: &'static str,
    seq: u64,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
}

#[async_trait]
impl EventsServer for Handlers {
    async fn events_subscribe(
        &self,
        pending: PendingSubscriptionSink,
        extensions: &Extensions,
        params: EventsSubscribeParams,
    ) -> SubscriptionResult {
        let connection = Arc::clone(caller(extensions)?);
        // Subscribed before the caller is told so: what happens from then on is received.
        let mut events = self.context.events.subscribe();
        let sink = pending.accept().await?;
        let run_id = params.run_id.as_ref().map(Text::as_str);
        let wanted = |event: &Event| {
            params.events.as_ref().is_none_or(|names| names.contains(&event.name))
                && connection.scopes().allows(event.name.record().scope)
                && (run_id.is_none()
                    || !matches!(event.name, EventName::Agent | EventName::Chat)
                    || event.run_id.as_deref() == run_id)
        };
        let (mut seq, mut missed) = (0, None);
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = sink.closed() => return Ok(()),
            };
            match event {
                Ok(event) if wanted(&event) => {
                    seq += 1;
                    let item = Item {
                        event: event.name.name(),
                        seq,
                        payload: &event.payload,
                        missed: missed.take(),
                    };
                    // Waits while the connection's queue is full; a peer that takes nothing is closed by the
                    // connection itself.
                    if sink.send(serde_json::value::to_raw_value(&item)?).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => *missed.get_or_insert(0) += count,
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }
}
