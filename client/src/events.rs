//! Events as streams: all of a gateway's, and those of one run.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture};
use jsonrpsee::core::client::{Subscription, SubscriptionCloseReason};
use openclaw_schema::{
    contract::{Contract as _, SubscriptionRecord},
    events::{AgentEvent, AgentStream, ChatEvent, ChatState, EventName},
    methods::events::{EventItem, EventsContract, EventsSubscribeParams},
};
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Sleep;

use crate::{
    Client,
    error::{Error, TimeoutKind, TransportKind},
    two_phase,
    websocket::WebSocket,
};

/// How long the rest of a run's events may take once one kind of them has come to its end.
const LAST_EVENTS_LIMIT: Duration = Duration::from_millis(500);

/// The method that subscribes to events.
const SUBSCRIBE: &str = EventsContract::METHODS[0].name;
/// What belongs to it.
const SUBSCRIPTION: SubscriptionRecord = match EventsContract::METHODS[0].subscription {
    Some(subscription) => subscription,
    None => panic!("`events.subscribe` is a subscription"),
};

/// One item of an [`EventStream`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// An event of the gateway.
    Received(EventItem),
    /// Events were lost on the way, in front of the item that follows.
    Gap {
        /// How many.
        missed: u64,
    },
    /// The connection had broken and has been made anew: events in between are lost, and nobody knows how many. Only
    /// on a client that reconnects.
    Reconnected {
        /// Why the connection broke.
        cause: Error,
    },
}

/// The gateway's events, as they happen. Made by [`Client::events`].
///
/// The stream keeps the connection open. When that ends, the last item says why. On a client that reconnects the
/// stream goes on with the next connection, after [`Event::Reconnected`], and ends when reconnecting is paused.
/// Dropping the stream ends the subscription.
pub struct EventStream {
    client: Client,
    params: Box<RawValue>,
    source: EventSource,
    /// Items that are to come before those of the source.
    ready: VecDeque<Event>,
}

enum EventSource {
    Subscribed(Subscription<EventItem>, Arc<WebSocket>),
    /// The connection broke, for this reason; another subscription is under way.
    Broken(Error, BoxFuture<'static, Result<Subscribed, Error>>),
    Over,
}

type Subscribed = (Subscription<EventItem>, Arc<WebSocket>);

async fn subscribe(client: &Client, params: &RawValue) -> Result<Subscribed, Error> {
    client.connection.subscribe_on(SUBSCRIBE, Some(params.to_owned()), SUBSCRIPTION.unsubscribe).await
}

/// Subscribes on the next connection, however long that takes.
async fn subscribe_again(client: Client, params: Box<RawValue>) -> Result<Subscribed, Error> {
    loop {
        match subscribe(&client, &params).await {
            // No limit holds for somebody who waits for what may happen some day.
            Err(Error::Timeout { what: TimeoutKind::Reconnect, .. }) => {}
            subscribed => return subscribed,
        }
    }
}

impl EventStream {
    pub(crate) async fn open(client: Client, params: &EventsSubscribeParams) -> Result<Self, Error> {
        let params = to_raw_value(params).expect("params serialise");
        let (subscription, socket) = subscribe(&client, &params).await?;
        let source = EventSource::Subscribed(subscription, socket);
        Ok(Self { client, params, source, ready: VecDeque::new() })
    }

    /// What follows the last item of a subscription.
    fn after_the_end(
        &self,
        reason: Option<SubscriptionCloseReason>,
        socket: &WebSocket,
    ) -> (EventSource, Option<Error>) {
        if let Some(SubscriptionCloseReason::Lagged) = reason {
            let reason = "they were read more slowly than they came; subscribe again";
            let lagged = Error::transport(TransportKind::Lagged, self.client.url(), reason);
            return (EventSource::Over, Some(lagged));
        }
        match socket.ended() {
            Some(cause) if self.client.reconnects() => {
                let again = subscribe_again(self.client.clone(), self.params.clone()).boxed();
                (EventSource::Broken(cause, again), None)
            }
            ended => (EventSource::Over, ended),
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Stream for EventStream {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match &mut this.source {
                EventSource::Subscribed(subscription, socket) => {
                    match ready!(subscription.poll_next_unpin(context)) {
                        Some(Ok(item)) => {
                            let missed = item.missed.filter(|missed| *missed > 0);
                            this.ready.extend(missed.map(|missed| Event::Gap { missed }));
                            this.ready.push_back(Event::Received(item));
                        }
                        Some(Err(problem)) => {
                            return Poll::Ready(Some(Err(Error::bad_payload("an event", problem))));
                        }
                        None => {
                            let (reason, socket) = (subscription.close_reason(), Arc::clone(socket));
                            let (source, error) = this.after_the_end(reason, &socket);
                            this.source = source;
                            if let Some(error) = error {
                                return Poll::Ready(Some(Err(error)));
                            }
                        }
                    }
                }
                EventSource::Broken(cause, again) => match ready!(again.poll_unpin(context)) {
                    Ok((subscription, socket)) => {
                        this.ready.push_back(Event::Reconnected { cause: cause.clone() });
                        this.source = EventSource::Subscribed(subscription, socket);
                    }
                    Err(error) => {
                        this.source = EventSource::Over;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                EventSource::Over => return Poll::Ready(None),
            }
        }
    }
}

/// One event of a run.
#[derive(Debug, Clone)]
pub enum RunEvent {
    /// Progress in detail: lifecycle, text as it is written, usage.
    Agent(AgentEvent),
    /// Progress as a conversation: deltas, then one final, aborted or error state.
    Chat(ChatEvent),
    /// Events were lost here: on the way, or because the connection broke and was made anew. The outcome of the run
    /// is not affected.
    Gap,
}

/// The events of one run, from its start to its end. Belongs to an [`AgentRun`](crate::AgentRun).
///
/// Ends with the run. Over HTTP its one item is an error that says that there are no events.
pub struct RunEvents {
    events: Source,
    lifecycle_ended: bool,
    chat_ended: bool,
    /// Runs once one of the two has ended.
    patience: Option<Pin<Box<Sleep>>>,
    /// Ready when the run has ended. Asked for after a gap, in which the last events may have been.
    run_ended: Option<BoxFuture<'static, ()>>,
}

enum Source {
    Stream(Box<EventStream>, String),
    Unavailable,
    Over,
}

impl RunEvents {
    /// The events of the run of this id, of which alone `events` tells.
    pub(crate) fn from_stream(events: EventStream, run_id: String) -> Self {
        Self::new(Source::Stream(Box::new(events), run_id))
    }

    pub(crate) fn unavailable() -> Self {
        Self::new(Source::Unavailable)
    }

    pub(crate) fn over() -> Self {
        Self::new(Source::Over)
    }

    fn new(events: Source) -> Self {
        Self { events, lifecycle_ended: false, chat_ended: false, patience: None, run_ended: None }
    }

    fn note_end(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Agent(event) if event.stream == AgentStream::Lifecycle => {
                let phase = event.data.get("phase").and_then(|phase| phase.as_str());
                self.lifecycle_ended |= matches!(phase, Some("end" | "error"));
            }
            RunEvent::Agent(_) | RunEvent::Gap => {}
            RunEvent::Chat(event) => self.chat_ended |= event.state != ChatState::Delta,
        }
        if self.lifecycle_ended || self.chat_ended {
            self.await_the_rest();
        }
    }

    fn await_the_rest(&mut self) {
        if self.patience.is_none() {
            self.patience = Some(Box::pin(tokio::time::sleep(LAST_EVENTS_LIMIT)));
        }
    }
}

impl fmt::Debug for RunEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunEvents").finish_non_exhaustive()
    }
}

impl Stream for RunEvents {
    type Item = Result<RunEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let (stream, run_id) = match &mut this.events {
                Source::Stream(stream, run_id) if !(this.lifecycle_ended && this.chat_ended) => {
                    (stream, run_id)
                }
                Source::Stream(..) | Source::Over => {
                    // Dropping the stream ends the subscription.
                    this.events = Source::Over;
                    return Poll::Ready(None);
                }
                Source::Unavailable => {
                    this.events = Source::Over;
                    return Poll::Ready(Some(Err(Error::no_subscriptions_over_http())));
                }
            };
            let item = match stream.poll_next_unpin(context) {
                Poll::Ready(Some(item)) => item,
                Poll::Ready(None) => {
                    this.events = Source::Over;
                    continue;
                }
                Poll::Pending => {
                    if this.run_ended.as_mut().is_some_and(|ended| ended.poll_unpin(context).is_ready()) {
                        this.run_ended = None;
                        this.await_the_rest();
                    }
                    match &mut this.patience {
                        Some(patience) => ready!(patience.poll_unpin(context)),
                        None => return Poll::Pending,
                    }
                    this.events = Source::Over;
                    continue;
                }
            };
            let event = match item {
                Ok(Event::Received(item)) => match run_event(item) {
                    Some(event) => event,
                    None => continue,
                },
                Ok(Event::Gap { .. } | Event::Reconnected { .. }) => {
                    let ended = two_phase::run_ended(stream.client.clone(), run_id.clone());
                    this.run_ended = Some(ended.boxed());
                    Ok(RunEvent::Gap)
                }
                Err(error) => Err(error),
            };
            if let Ok(event) = &event {
                this.note_end(event);
            }
            return Poll::Ready(Some(event));
        }
    }
}

/// The event of a run; nothing for events of other names, which a later gateway may send.
fn run_event(item: EventItem) -> Option<Result<RunEvent, Error>> {
    fn read<T: DeserializeOwned>(name: &str, payload: serde_json::Value) -> Result<T, Error> {
        serde_json::from_value(payload)
            .map_err(|problem| Error::bad_payload(format!("event `{name}`"), problem))
    }
    let EventItem { event: name, payload, .. } = item;
    if name == EventName::Agent.name() {
        Some(read(&name, payload).map(RunEvent::Agent))
    } else if name == EventName::Chat.name() {
        Some(read(&name, payload).map(RunEvent::Chat))
    } else {
        None
    }
}
