//! `events.subscribe`.

use std::sync::Arc;

use jsonrpsee::{
    Extensions, PendingSubscriptionSink, SubscriptionSink,
    core::{SubscriptionResult, async_trait},
};
use openclaw_schema::{
    RpcError, events::EventName, methods::events::EventsSubscribeParams, server::EventsServer, types::Text,
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Handlers, caller, refuse};
use crate::{
    connection::Connection,
    events::{Event, EventBus},
};

/// One item, around a payload that was serialised once for all subscribers. The wire form of `EventItem`.
#[derive(Serialize)]
struct Item<'a> {
    event: &'static str,
    seq: u64,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
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
        let events = self.context.events.subscribe();
        let run_id = params.run_id.as_ref().map(Text::as_str);
        let resume = run_id.zip(params.resume_from);
        let past = match resume {
            Some((run_id, position)) => match self.context.events.past(run_id, position) {
                Some(past) => past,
                // It has not said anything yet.
                None if self.context.runs.is_active(run_id) => Vec::new(),
                None => {
                    let message = format!("no events of run `{run_id}` are kept; agent.wait has its outcome");
                    pending.reject(refuse(RpcError::not_found("/runId", message))).await;
                    return Ok(());
                }
            },
            None => Vec::new(),
        };
        let sink = pending.accept().await?;
        let mut subscriber = Subscriber {
            sink,
            connection,
            wanted: params.events,
            position: resume.map(|(_, position)| position),
            run_id: run_id.map(str::to_owned),
            seq: 0,
            number: 0,
            missed: None,
        };
        subscriber.follow(&self.context.events, events, past).await
    }
}

/// One subscription at work.
struct Subscriber {
    sink: SubscriptionSink,
    connection: Arc<Connection>,
    wanted: Option<Vec<EventName>>,
    run_id: Option<String>,
    /// The number of the last item.
    seq: u64,
    /// The position of the last event of the run, where there is one run and the subscriber has seen some of it.
    position: Option<u64>,
    /// Its number.
    number: u64,
    /// How many events were lost since the last item.
    missed: Option<u64>,
}

impl Subscriber {
    async fn follow(
        &mut self,
        bus: &EventBus,
        mut events: broadcast::Receiver<Arc<Event>>,
        past: Vec<Arc<Event>>,
    ) -> SubscriptionResult {
        for event in past {
            if !self.send(&event).await? {
                return Ok(());
            }
        }
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = self.sink.closed() => return Ok(()),
            };
            match event {
                Ok(event) => {
                    if !self.send(&event).await? {
                        return Ok(());
                    }
                }
                Err(RecvError::Lagged(count)) => {
                    let kept = self
                        .run_id
                        .as_deref()
                        .and_then(|run_id| Some((self.position?, bus.past(run_id, self.position?)?)));
                    match kept {
                        // Of one run, what is kept makes up for what was lost.
                        Some((_, past)) if self.wants_run_alone() => {
                            for event in past {
                                if !self.send(&event).await? {
                                    return Ok(());
                                }
                            }
                        }
                        _ => *self.missed.get_or_insert(0) += count,
                    }
                }
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }

    /// Whether nothing but the events of its run is wanted.
    fn wants_run_alone(&self) -> bool {
        let is_of_runs = |name: &EventName| matches!(name, EventName::Agent | EventName::Chat);
        self.wanted.as_ref().is_some_and(|names| names.iter().all(is_of_runs))
    }

    /// Sends an event, if it is wanted. `false` when there is nobody to send to any more.
    async fn send(&mut self, event: &Event) -> Result<bool, serde_json::Error> {
        let is_of_runs = matches!(event.name, EventName::Agent | EventName::Chat);
        if is_of_runs && self.run_id.is_some() {
            if event.run_id != self.run_id {
                return Ok(true);
            }
            // Both of what is kept and of what happens now.
            if event.number <= self.number {
                return Ok(true);
            }
            self.number = event.number;
            if let (Some(seen), Some(position)) = (self.position, event.position) {
                // A position that comes again is that of another run of the same id.
                let seen = if position <= seen { 0 } else { seen };
                if position > seen + 1 {
                    *self.missed.get_or_insert(0) += position - seen - 1;
                }
            }
            self.position = event.position;
        }
        if !self.wants(event) {
            return Ok(true);
        }
        self.seq += 1;
        let item = Item {
            event: event.name.name(),
            seq: self.seq,
            payload: &event.payload,
            position: event.position,
            missed: self.missed.take(),
        };
        // Waits while the connection's queue is full; a peer that takes nothing is closed by the connection itself.
        Ok(self.sink.send(serde_json::value::to_raw_value(&item)?).await.is_ok())
    }

    fn wants(&self, event: &Event) -> bool {
        let by_name = self.wanted.as_ref().map(|names| names.contains(&event.name));
        by_name.unwrap_or_else(|| self.connection.watches(&event.audience))
            && self.connection.scopes().allows(event.name.record().scope)
    }
}
