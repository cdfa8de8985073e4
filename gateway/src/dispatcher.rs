//! From a method's name to its handler: method record → scope → deadline → by-name params → jsonrpsee callback.
//!
//! [`Dispatcher::seal`] joins each jsonrpsee callback with its record once, at start-up, and asserts that what
//! is served is what is declared. What it adds holds for every dialect, every transport and for batches.
//! This is the only file that leans on the internals of jsonrpsee-core.

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use jsonrpsee::{
    BoundedSubscriptions, ConnectionId, Extensions, MethodCallback, MethodResponse, MethodSink, Methods,
    SubscriptionState,
    core::id_providers::RandomIntegerIdProvider,
    types::{ErrorObjectOwned, Id, Params},
};
use openclaw_schema::{
    ErrorCode, RpcError, Scope,
    contract::MethodRecord,
    document::Api,
    methods::{connect::ConnectMethod, lifecycle::LifecycleMethod},
    problem,
    types::SubscriptionId,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::{
    connection::{Connection, Transport},
    lifecycle::{Lifecycle, Phase},
    logs::traffic::Watched,
    settings::{Limits, LiveLimits},
};

/// One call, as a dialect decoded it.
pub(crate) struct Call<'a> {
    pub(crate) id: Id<'a>,
    pub(crate) method: &'a str,
    /// The params as JSON text; absent stands for `{}`.
    pub(crate) params: Option<&'a str>,
}

/// What became of a call.
pub(crate) enum Answer {
    /// The response is there.
    Ready(MethodResponse),
    /// The response is yet to come; dropping the future cancels the call.
    Pending(BoxFuture<'static, MethodResponse>),
}

/// Where the subscriptions of one connection send their items.
pub(crate) struct Subscriptions {
    sink: MethodSink,
    bound: BoundedSubscriptions,
}

impl Subscriptions {
    /// The receiver gets responses to subscribe calls and items alike, as JSON-RPC text.
    pub(crate) fn new(limits: &Limits) -> (Self, mpsc::Receiver<Box<RawValue>>) {
        let (sender, receiver) = mpsc::channel(limits.subscription_queue);
        let sink = MethodSink::new(sender);
        (Self { sink, bound: BoundedSubscriptions::new(limits.max_subscriptions) }, receiver)
    }
}

/// Calls handlers.
pub(crate) struct Dispatcher {
    entries: HashMap<&'static str, Entry>,
    limits: LiveLimits,
    calls: Arc<CallCounts>,
    /// Set when the gateway stops.
    draining: AtomicBool,
    lifecycle: Lifecycle,
}

struct Entry {
    record: &'static MethodRecord,
    callback: MethodCallback,
    /// Whether a caller that is not authenticated may call it.
    open: bool,
}

/// Calls, counted.
#[derive(Debug, Default)]
pub(crate) struct CallCounts {
    total: AtomicU64,
    pending: AtomicU64,
}

impl CallCounts {
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Waits until no call is pending.
    pub(crate) async fn ended(&self) {
        while self.pending() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Calls whose answer is yet to come.
    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }
}

/// Why declared and served methods do not match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// A method has a handler, but no `#[contract]` declares it.
    #[error("method {0} has a handler, but no contract declares it")]
    Undeclared(String),
    /// A method is declared, but has no handler.
    #[error("method {0} is declared, but has no handler")]
    Unserved(String),
    /// Two contracts declare the same method.
    #[error("method {0} is declared twice")]
    Twice(String),
}

impl Dispatcher {
    /// Joins callbacks and records.
    pub(crate) fn seal(
        methods: &Methods,
        api: &Api,
        limits: &LiveLimits,
        lifecycle: &Lifecycle,
    ) -> Result<Self, SealError> {
        let mut declared: HashMap<&'static str, &'static MethodRecord> = HashMap::new();
        for record in api.methods() {
            let unsubscribe = record.subscription.map(|subscription| subscription.unsubscribe);
            for name in std::iter::once(record.name).chain(unsubscribe) {
                if declared.insert(name, record).is_some() {
                    return Err(SealError::Twice(name.to_owned()));
                }
            }
        }
        let mut entries = HashMap::with_capacity(declared.len());
        for name in methods.method_names() {
            let record = declared.remove(name).ok_or_else(|| SealError::Undeclared(name.to_owned()))?;
            let callback = methods.method(name).ok_or_else(|| SealError::Unserved(name.to_owned()))?.clone();
            let open = name == ConnectMethod::Connect.name();
            entries.insert(name, Entry { record, callback, open });
        }
        if let Some(name) = declared.into_keys().min() {
            return Err(SealError::Unserved(name.to_owned()));
        }
        Ok(Self {
            entries,
            limits: Arc::clone(limits),
            calls: Arc::default(),
            draining: AtomicBool::new(false),
            lifecycle: lifecycle.clone(),
        })
    }

    /// Refuses calls from now on; those in flight go on.
    pub(crate) fn refuse_calls(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the gateway drains: calls are refused.
    pub(crate) fn refuses_calls(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn calls(&self) -> &Arc<CallCounts> {
        &self.calls
    }

    /// The record of a method.
    pub(crate) fn record(&self, method: &str) -> Option<&'static MethodRecord> {
        self.entries.get(method).map(|entry| entry.record)
    }

    /// The names of all methods, sorted.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.entries.keys().copied().collect();
        names.sort_unstable();
        names
    }

    /// Calls a method. A handler that is ready at its first poll is answered at once and costs no task.
    pub(crate) fn start(
        &self,
        call: Call<'_>,
        connection: &Arc<Connection>,
        subscriptions: Option<&Subscriptions>,
    ) -> Answer {
        let Some(watched) = Watched::begin(call.method, call.params, connection) else {
            return self.call(call, connection, subscriptions);
        };
        let record = self.record(call.method);
        match self.call(call, connection, subscriptions) {
            Answer::Ready(response) => {
                tell(watched, record, &response);
                Answer::Ready(response)
            }
            Answer::Pending(response) => {
                let watched = watched.named(record.map_or("", |record| record.name));
                Answer::Pending(response.inspect(move |response| tell(watched, record, response)).boxed())
            }
        }
    }

    fn call(
        &self,
        call: Call<'_>,
        connection: &Arc<Connection>,
        subscriptions: Option<&Subscriptions>,
    ) -> Answer {
        let Call { id, method, params } = call;
        self.calls.total.fetch_add(1, Ordering::Relaxed);
        let entry = match self.admit(method, connection) {
            Ok(entry) => entry,
            Err(error) => return refused(id, error),
        };
        let record = entry.record;
        let max_response_bytes = self.limits.load().max_payload_bytes;
        let params = params.unwrap_or("{}");
        let mut extensions = Extensions::new();
        if record.with_extensions {
            extensions.insert(Arc::clone(connection));
        }
        let guarded = catch_unwind(AssertUnwindSafe(|| match &entry.callback {
            MethodCallback::Sync(callback) => match by_name(record, params) {
                Ok(positional) => {
                    let params = Params::new(Some(&positional));
                    Answer::Ready(callback(id.clone(), params, max_response_bytes, extensions))
                }
                Err(error) => refused(id.clone(), error),
            },
            MethodCallback::Async(callback) => match by_name(record, params) {
                Ok(positional) => {
                    // The one copy of the params: an async handler must own them.
                    let owned = Params::new(Some(&positional)).into_owned();
                    let connection_id = connection_id(connection);
                    let mut future = callback(
                        id.clone().into_owned(),
                        owned,
                        connection_id,
                        max_response_bytes,
                        extensions,
                    );
                    match (&mut future).now_or_never() {
                        Some(response) => Answer::Ready(response),
                        None => {
                            Answer::Pending(self.bounded(record, connection, id.clone().into_owned(), future))
                        }
                    }
                }
                Err(error) => refused(id.clone(), error),
            },
            MethodCallback::Subscription(callback) => {
                // Subscribing is rare: the check comes first, as jsonrpsee answers bad params by itself.
                let checked = (record.params.check)(params)
                    .map_err(|problem| problem.into_error(record.name))
                    .and_then(|()| by_name(record, params));
                let started = checked.and_then(|positional| {
                    let (sink, permit) = subscription_room(record, connection, subscriptions, &id)?;
                    let state = SubscriptionState {
                        conn_id: connection_id(connection),
                        id_provider: &RandomIntegerIdProvider,
                        subscription_permit: permit,
                    };
                    Ok(callback(id.clone(), Params::new(Some(&positional)), sink, state, extensions))
                });
                match started {
                    Ok(future) => {
                        let id = id.clone().into_owned();
                        Answer::Pending(
                            future
                                .map(move |response| ours(record, max_response_bytes, &id, response))
                                .boxed(),
                        )
                    }
                    Err(error) => refused(id.clone(), error),
                }
            }
            MethodCallback::Unsubscription(callback) => match unsubscribe_params(params) {
                Ok(positional) => Answer::Ready(callback(
                    id.clone(),
                    Params::new(Some(&positional)),
                    connection_id(connection),
                    max_response_bytes,
                    extensions,
                )),
                Err(problem) => refused(id.clone(), problem.into_error(method)),
            },
        }));
        match guarded {
            Ok(Answer::Ready(response)) => {
                Answer::Ready(mended(record, params, id, response, max_response_bytes))
            }
            Ok(pending) => pending,
            Err(panic) => refused(id, panicked(record, &*panic)),
        }
    }

    /// Finds the method and checks that the caller may call it.
    fn admit(&self, method: &str, connection: &Connection) -> Result<&Entry, RpcError> {
        let entry = self.entries.get(method);
        // One guess per connection, also where the rest of a batch holds more.
        if connection.is_refused() {
            return Err(RpcError::unauthorized("unauthorized: this connection has shown a wrong credential"));
        }
        if !connection.is_authenticated() && !entry.is_some_and(|entry| entry.open) {
            let message = "unauthorized: send `Authorization: Bearer …`, or call `connect` first";
            return Err(RpcError::unauthorized(message));
        }
        if self.refuses_calls() {
            return Err(self.lifecycle.refusal(method));
        }
        let entry = entry.ok_or_else(|| self.unknown(method))?;
        if self.lifecycle.phase() == Phase::Suspended
            && !matches!(entry.record.scope, Scope::None | Scope::OperatorRead)
            && LifecycleMethod::ALL.iter().all(|own| own.name() != method)
        {
            return Err(self.lifecycle.refusal(method));
        }
        if !connection.scopes().allows(entry.record.scope) {
            return Err(RpcError::forbidden(method, entry.record.scope));
        }
        Ok(entry)
    }

    #[cold]
    fn unknown(&self, method: &str) -> RpcError {
        // A name of any length may have been sent: what is echoed is bounded.
        let shown: String = method.chars().take(128).collect();
        let nearest = problem::nearest(&shown, self.entries.keys().copied());
        let hint = nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default();
        let mut error = RpcError::new(ErrorCode::MethodNotFound, format!("unknown method: {shown}{hint}"));
        error.data.method = Some(shown);
        error.data.nearest = nearest.map(str::to_owned);
        error
    }

    /// A pending call with its deadline, counted, its panics contained.
    fn bounded(
        &self,
        record: &'static MethodRecord,
        connection: &Connection,
        id: Id<'static>,
        future: BoxFuture<'static, MethodResponse>,
    ) -> BoxFuture<'static, MethodResponse> {
        // A method that waits by design is bounded by its own parameter, and by its connection.
        let limits = self.limits.load();
        let asked = connection.call_timeout().unwrap_or(limits.call_timeout);
        let deadline = (!record.long_poll).then(|| asked.min(limits.call_timeout));
        let max_response_bytes = limits.max_payload_bytes;
        let guarded = AssertUnwindSafe(future).catch_unwind();
        let pending = PendingCall::new(&self.calls);
        async move {
            let _pending = pending;
            let outcome = match deadline {
                Some(deadline) => match tokio::time::timeout(deadline, guarded).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        return MethodResponse::error(id, ErrorObjectOwned::from(expired(record, deadline)));
                    }
                },
                None => guarded.await,
            };
            match outcome {
                Ok(response) => ours(record, max_response_bytes, &id, response),
                Err(panic) => MethodResponse::error(id, ErrorObjectOwned::from(panicked(record, &*panic))),
            }
        }
        .boxed()
    }
}

/// Puts our errors in the place of jsonrpsee's own, those about params included.
fn mended(
    record: &'static MethodRecord,
    params: &str,
    id: Id<'_>,
    response: MethodResponse,
    max_response_bytes: usize,
) -> MethodResponse {
    if response.as_error_code() == Some(ErrorCode::InvalidParams.number())
        && let Err(problem) = (record.params.check)(params)
    {
        return MethodResponse::error(id, ErrorObjectOwned::from(problem.into_error(record.name)));
    }
    ours(record, max_response_bytes, &id, response)
}

/// Tells who watches the traffic how a call was answered.
fn tell(watched: Watched<'_>, record: Option<&MethodRecord>, response: &MethodResponse) {
    #[derive(Deserialize)]
    struct Refused {
        error: ErrorObjectOwned,
    }
    #[derive(Deserialize)]
    struct Data {
        code: String,
    }
    if !watched.asks(response.is_success(), record.is_some_and(|record| record.long_poll)) {
        return;
    }
    if response.is_success() {
        return watched.answered(None);
    }
    let Ok(Refused { error }) = serde_json::from_str(response.as_json().get()) else {
        return watched.answered(Some(("UNKNOWN", "")));
    };
    let code = error.data().and_then(|data| serde_json::from_str::<Data>(data.get()).ok());
    watched.answered(Some((code.as_ref().map_or("UNKNOWN", |data| &data.code), error.message())));
}

/// Puts our errors in the place of those that jsonrpsee makes of a result or of a handler that broke.
fn ours(
    record: &'static MethodRecord,
    max_response_bytes: usize,
    id: &Id<'_>,
    response: MethodResponse,
) -> MethodResponse {
    let error = match response.as_error_code() {
        None => return response,
        Some(jsonrpsee::types::error::OVERSIZED_RESPONSE_CODE) => RpcError::new(
            ErrorCode::LimitExceeded,
            format!("the result of {} is larger than {max_response_bytes} bytes", record.name),
        ),
        // What jsonrpsee answers, without an id even, when a handler panicked in a task of jsonrpsee's own, or dropped
        // its subscription unaccepted.
        Some(jsonrpsee::types::error::INTERNAL_ERROR_CODE)
            if response.as_json().get().ends_with(PLAIN_INTERNAL_ERROR) =>
        {
            broken(record, "it panicked in a task of its own, or ended without an answer")
        }
        Some(_) => return response,
    };
    MethodResponse::error(id.clone(), ErrorObjectOwned::from(error))
}

/// The end of jsonrpsee's own internal error.
const PLAIN_INTERNAL_ERROR: &str = r#""error":{"code":-32603,"message":"Internal error"}}"#;

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("methods", &self.entries.len()).finish_non_exhaustive()
    }
}

/// Counts a pending call for as long as it lives.
struct PendingCall {
    calls: Arc<CallCounts>,
}

impl PendingCall {
    fn new(calls: &Arc<CallCounts>) -> Self {
        calls.pending.fetch_add(1, Ordering::Relaxed);
        Self { calls: Arc::clone(calls) }
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.calls.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

fn refused(id: Id<'_>, error: RpcError) -> Answer {
    Answer::Ready(MethodResponse::error(id, ErrorObjectOwned::from(error)))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a number to tell connections apart; 64-bit targets keep it whole"
)]
fn connection_id(connection: &Connection) -> ConnectionId {
    ConnectionId(connection.id() as usize)
}

/// `{…}` as `[{…}]`, the form that jsonrpsee's generated code decodes one struct from.
fn by_name(record: &MethodRecord, params: &str) -> Result<String, RpcError> {
    let is_object = params.trim_ascii_start().starts_with('{');
    if record.takes_params && is_object {
        let mut positional = String::with_capacity(params.len() + 2);
        positional.push('[');
        positional.push_str(params);
        positional.push(']');
        return Ok(positional);
    }
    // Either no object, or a method that takes nothing: the check has the words for both.
    (record.params.check)(params).map_err(|problem| problem.into_error(record.name))?;
    Ok(String::new())
}

/// `{"subscription": id}`, or `[id]`, which jsonrpsee's own client sends past every middleware. Read here, because
/// jsonrpsee takes what is no id for one that is not there.
fn unsubscribe_params(params: &str) -> Result<String, problem::ParamProblem> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Unsubscribe {
        subscription: SubscriptionId,
    }
    let id = if params.trim_ascii_start().starts_with('[') {
        serde_json::from_str::<[SubscriptionId; 1]>(params).map(|[id]| id)
    } else {
        serde_json::from_str::<Unsubscribe>(params).map(|unsubscribe| unsubscribe.subscription)
    };
    id.and_then(|id| serde_json::to_string(&[id])).map_err(|_| problem::ParamProblem {
        path: String::new(),
        reason: "expected {\"subscription\": <id>}".to_owned(),
        allowed: vec!["subscription".to_owned()],
        nearest: None,
    })
}

fn subscription_room(
    record: &MethodRecord,
    connection: &Connection,
    subscriptions: Option<&Subscriptions>,
    id: &Id<'_>,
) -> Result<(MethodSink, jsonrpsee::SubscriptionPermit), RpcError> {
    let name = record.name;
    let Some(subscriptions) = subscriptions else {
        let how = match connection.transport() {
            Transport::Http => "over a WebSocket",
            Transport::Frames => "over JSON-RPC; events come to frame clients by themselves",
            Transport::WebSocket => {
                "as a single request with a string or unsigned integer id, outside of a batch"
            }
        };
        return Err(RpcError::new(
            ErrorCode::InvalidRequest,
            format!("{name} is a subscription: call it {how}"),
        ));
    };
    if matches!(id, Id::Null) {
        return Err(RpcError::new(
            ErrorCode::InvalidRequest,
            format!("{name} is a subscription: its id must not be null"),
        ));
    }
    let permit = subscriptions.bound.acquire().ok_or_else(|| {
        let most = subscriptions.bound.max();
        RpcError::new(
            ErrorCode::LimitExceeded,
            format!("this connection has {most} subscriptions, the most it may have"),
        )
    })?;
    Ok((subscriptions.sink.clone(), permit))
}

#[cold]
fn expired(record: &MethodRecord, deadline: Duration) -> RpcError {
    let message = format!("{} did not finish within {} ms", record.name, deadline.as_millis());
    let mut error = RpcError::new(ErrorCode::DeadlineExceeded, message);
    error.data.method = Some(record.name.to_owned());
    error
}

#[cold]
fn panicked(record: &MethodRecord, panic: &(dyn Any + Send)) -> RpcError {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    broken(record, message.unwrap_or("it panicked without a message"))
}

/// The answer for a handler that broke. The cause is for the log alone.
fn broken(record: &MethodRecord, cause: &str) -> RpcError {
    let correlation_id = uuid::Uuid::now_v7().to_string();
    tracing::error!(method = record.name, correlation_id, cause, "a handler panicked");
    let mut error = RpcError::new(ErrorCode::Internal, "internal error; the gateway's log has the cause");
    error.data.method = Some(record.name.to_owned());
    error.data.correlation_id = Some(correlation_id);
    error
}
