//! What is to be written for a message, now and later.

use futures_util::future::BoxFuture;

/// What is to be written for a message. Dropping it cancels what is yet to come.
#[derive(Default)]
pub(crate) struct Reply {
    /// A text that is there.
    pub(crate) now: Option<String>,
    /// What follows it.
    pub(crate) later: Option<BoxFuture<'static, Self>>,
}

impl Reply {
    /// Nothing: the message asked for no answer.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// This text, and nothing later.
    pub(crate) fn now(text: String) -> Self {
        Self { now: Some(text), later: None }
    }

    /// A text that is yet to come.
    pub(crate) fn later(reply: BoxFuture<'static, Self>) -> Self {
        Self { now: None, later: Some(reply) }
    }

    /// The one text of a JSON-RPC reply, which is there or comes later: HTTP writes a single body.
    pub(crate) async fn into_text(self) -> Option<String> {
        match self.later {
            Some(later) => later.await.now,
            None => self.now,
        }
    }
}
