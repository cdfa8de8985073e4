//! Events as streams: all of a gateway's, and those of one run.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use jsonrpsee::core::client::{Subscription, SubscriptionCloseReason};
use openclaw_schema::{
    events::{AgentEvent, AgentStream, ChatEvent, ChatState, EventName},
    methods::events::EventItem,
};
use serde::de::DeserializeOwned;
use tokio::time::Sleep;

use crate::{
    Client,
    error::{Error, TransportKind},
};

/// How long the rest of a run's events may take once one kind of them has come to its end.
const LAST_EVENTS_LIMIT: Duration = Duration::from_millis(500);

/// The gateway's events, as they happen. Made by [`Client::events`].
///
/// The stream keeps the connection open. When that ends, the last item says why. Dropping the stream ends the
/// subscription.
pub struct EventStream {
    subscription: Subscription<EventItem>,
    client: Client,
    over: bool,
}

impl EventStream {
    pub(crate) fn new(subscription: Subscription<EventItem>, client: Client) -> Self {
        Self { subscription, client, over: false }
    }

    fn why_it_ended(&self) -> Option<Error> {
        if let Some(SubscriptionCloseReason::Lagged) = self.subscription.close_reason() {
            let reason = "they were read more slowly than they came; subscribe again";
            return Some(Error::transport(TransportKind::Lagged, self.client.url(), reason));
        }
        self.client.ended()
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Stream for EventStream {
    type Item = Result<EventItem, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.subscription.poll_next_unpin(context)) {
            Some(Ok(item)) => Some(Ok(item)),
            Some(Err(problem)) => Some(Err(Error::bad_payload("an event", problem))),
            None => {
                self.over = true;
                self.why_it_ended().map(Err)
            }
        })
    }
}

/// One event of a run.
#[derive(Debug, Clone)]
pub enum RunEvent {
    /// Progress in detail: lifecycle, text as it is written, usage.
    Agent(AgentEvent),
    /// Progress as a conversation: deltas, then one final, aborted or error state.
    Chat(ChatEvent),
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
}

enum Source {
    Stream(Box<EventStream>),
    Unavailable,
    Over,
}

impl RunEvents {
    pub(crate) fn from_stream(events: EventStream) -> Self {
        Self::new(Source::Stream(Box::new(events)))
    }

    pub(crate) fn unavailable() -> Self {
        Self::new(Source::Unavailable)
    }

    pub(crate) fn over() -> Self {
        Self::new(Source::Over)
    }

    fn new(events: Source) -> Self {
        Self { events, lifecycle_ended: false, chat_ended: false, patience: None }
    }

    fn note_end(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Agent(event) if event.stream == AgentStream::Lifecycle => {
                let phase = event.data.get("phase").and_then(|phase| phase.as_str());
                self.lifecycle_ended |= matches!(phase, Some("end" | "error"));
            }
            RunEvent::Agent(_) => {}
            RunEvent::Chat(event) => self.chat_ended |= event.state != ChatState::Delta,
        }
        if (self.lifecycle_ended || self.chat_ended) && self.patience.is_none() {
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
            let stream = match &mut this.events {
                Source::Stream(stream) if !(this.lifecycle_ended && this.chat_ended) => stream,
                Source::Stream(_) | Source::Over => {
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
                    match &mut this.patience {
                        Some(patience) => ready!(patience.poll_unpin(context)),
                        None => return Poll::Pending,
                    }
                    this.events = Source::Over;
                    continue;
                }
            };
            let event = match item {
                Ok(item) => match run_event(item) {
                    Some(event) => event,
                    None => continue,
                },
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
