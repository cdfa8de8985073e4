//! What `#[contract]` records about a method: the one table from which dispatch, document, command line and
//! SDKs are made.
//!
//! Records are `const`: schemas and examples are function pointers, so that a process that does not ask for
//! them pays nothing.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    error::{ErrorCode, RpcError},
    problem::{self, ParamProblem},
    scope::Scope,
};

/// One namespace of methods, as `#[contract]` implements it for `<Trait>Contract`.
pub trait Contract {
    /// The heading of the namespace in documents.
    const GROUP: &'static str;
    /// The methods, in the order of declaration.
    const METHODS: &'static [MethodRecord];
}

/// Everything that is declared about one method.
#[derive(Debug, Clone, Copy)]
pub struct MethodRecord {
    /// The name on the wire, for example `logs.tail`.
    pub name: &'static str,
    /// The heading of the namespace in documents.
    pub group: &'static str,
    /// One plain sentence: the first paragraph of the doc comment.
    pub summary: &'static str,
    /// The rest of the doc comment, Markdown; may be empty.
    pub description: &'static str,
    /// What the caller must hold.
    pub scope: Scope,
    /// The contract version that introduced the method.
    pub since: &'static str,
    /// Whether new callers should use something else.
    pub deprecated: bool,
    /// Whether calling it twice does what calling it once does, so that a client may retry it.
    pub idempotent: bool,
    /// Whether a parameter of the method's own bounds it, instead of the gateway's call timeout.
    pub long_poll: bool,
    /// Whether the handler reads the caller's context.
    pub with_extensions: bool,
    /// Whether the handler takes the params struct as an argument.
    pub takes_params: bool,
    /// The params object.
    pub params: ParamsRef,
    /// The result; of a two-phase method, the acknowledgement; of a subscription, its id.
    pub result: TypeRef,
    /// How the outcome of a two-phase method is had.
    pub two_phase: Option<TwoPhase>,
    /// What a subscription sends.
    pub subscription: Option<SubscriptionRecord>,
    /// Errors beyond [`MethodRecord::common_errors`].
    pub errors: &'static [ErrorCode],
    /// At least one success and one error example.
    pub examples: fn() -> ErasedExamples,
}

impl MethodRecord {
    /// The errors that any method of this kind may answer.
    pub fn common_errors(&self) -> impl Iterator<Item = ErrorCode> {
        let forbidden = (self.scope != Scope::None).then_some(ErrorCode::Forbidden);
        let deadline = self.subscription.is_none().then_some(ErrorCode::DeadlineExceeded);
        [ErrorCode::InvalidParams, ErrorCode::Internal, ErrorCode::Unauthorized, ErrorCode::LimitExceeded]
            .into_iter()
            .chain(forbidden)
            .chain(deadline)
    }

    /// Every error the method may answer, in the order of the registry, without repetition.
    #[must_use]
    pub fn all_errors(&self) -> Vec<ErrorCode> {
        let mut all: Vec<ErrorCode> = self.common_errors().chain(self.errors.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A type, by its monomorphised schema function.
#[derive(Debug, Clone, Copy)]
pub struct TypeRef {
    /// The name of the type in the document.
    pub name: fn() -> Cow<'static, str>,
    /// The schema, as a `$ref` into the generator's definitions where the type has a name.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

impl TypeRef {
    /// The reference to `T`.
    #[must_use]
    pub const fn of<T: JsonSchema>() -> Self {
        Self { name: T::schema_name, schema: SchemaGenerator::subschema_for::<T> }
    }
}

/// The params type of a method: its schema, and the check that names what is wrong with given params.
#[derive(Debug, Clone, Copy)]
pub struct ParamsRef {
    /// The params object.
    pub ty: TypeRef,
    /// Parses params text again with path tracking. Cold: runs only once a parse has failed.
    pub check: fn(&str) -> Result<(), ParamProblem>,
}

impl ParamsRef {
    /// The reference to the params type `T`.
    #[must_use]
    pub const fn of<T: JsonSchema + DeserializeOwned>() -> Self {
        Self { ty: TypeRef::of::<T>(), check: problem::check::<T> }
    }
}

/// How the outcome of a two-phase method is had.
///
/// The method's result is an acknowledgement that carries `runId`. The outcome is field `final` of the result
/// of the `wait` method, called with `{runId, timeoutMs}`; `final` is absent while the run goes on.
/// The OpenClaw frame protocol sends the outcome as a second response instead (wire.md section 9).
#[derive(Debug, Clone, Copy)]
pub struct TwoPhase {
    /// The type of the outcome.
    pub outcome: TypeRef,
    /// The method that delivers the outcome.
    pub wait: &'static str,
}

/// What a subscription sends.
#[derive(Debug, Clone, Copy)]
pub struct SubscriptionRecord {
    /// The method name of the notifications.
    pub notification: &'static str,
    /// The method that ends the subscription, called with `{"subscription": id}`.
    pub unsubscribe: &'static str,
    /// The type of one item.
    pub item: TypeRef,
}

/// An event that the gateway pushes.
#[derive(Debug, Clone, Copy)]
pub struct EventRecord {
    /// The name on the wire, for example `tick`.
    pub name: &'static str,
    /// One plain sentence.
    pub summary: &'static str,
    /// When it is sent, in words.
    pub cadence: &'static str,
    /// What a receiver must hold.
    pub scope: Scope,
    /// The contract version that introduced the event.
    pub since: &'static str,
    /// The payload.
    pub payload: TypeRef,
    /// An example payload.
    pub example: fn() -> Value,
}

/// The examples of one method, typed, so that they cannot rot.
#[derive(Debug, Clone)]
pub struct Examples<P, R> {
    successes: Vec<Success<P, R>>,
    failures: Vec<Failure>,
}

#[derive(Debug, Clone)]
struct Failure {
    name: &'static str,
    params: Value,
    /// Absent: what the check of the params says.
    error: Option<RpcError>,
}

#[derive(Debug, Clone)]
struct Success<P, R> {
    name: &'static str,
    params: P,
    result: R,
}

impl<P: Serialize + DeserializeOwned, R: Serialize> Examples<P, R> {
    /// Begins with a call that succeeds. `name` says the case in words.
    #[must_use]
    pub fn success(name: &'static str, params: P, result: R) -> Self {
        Self { successes: vec![Success { name, params, result }], failures: Vec::new() }
    }

    /// Adds another call that succeeds.
    #[must_use]
    pub fn and_success(mut self, name: &'static str, params: P, result: R) -> Self {
        self.successes.push(Success { name, params, result });
        self
    }

    /// Adds a call that is refused with `error`.
    #[must_use]
    pub fn refused(mut self, name: &'static str, params: Value, error: RpcError) -> Self {
        self.failures.push(Failure { name, params, error: Some(error) });
        self
    }

    /// Adds a call whose params are invalid. The error is what the check of the params really says.
    #[must_use]
    pub fn invalid(mut self, name: &'static str, params: Value) -> Self {
        self.failures.push(Failure { name, params, error: None });
        self
    }

    /// The same without types, as the records hold it.
    ///
    /// # Panics
    ///
    /// When a value does not serialise or params given as invalid are valid, which a test over all records
    /// rules out.
    #[must_use]
    pub fn erase(self, method: &str) -> ErasedExamples {
        let json = |value: Result<Value, serde_json::Error>| value.expect("an example serialises");
        let failure = |failure: Failure| {
            let error = failure.error.unwrap_or_else(|| {
                problem::check::<P>(&failure.params.to_string())
                    .expect_err("params given as invalid are invalid")
                    .into_error(method)
            });
            ErrorExample { name: failure.name, params: failure.params, error }
        };
        ErasedExamples {
            successes: self
                .successes
                .into_iter()
                .map(|success| SuccessExample {
                    name: success.name,
                    params: json(serde_json::to_value(success.params)),
                    result: json(serde_json::to_value(success.result)),
                })
                .collect(),
            failures: self.failures.into_iter().map(failure).collect(),
        }
    }
}

/// The examples of one method, as JSON.
#[derive(Debug, Clone)]
pub struct ErasedExamples {
    /// Calls that succeed.
    pub successes: Vec<SuccessExample>,
    /// Calls that are refused.
    pub failures: Vec<ErrorExample>,
}

/// A call that succeeds.
#[derive(Debug, Clone)]
pub struct SuccessExample {
    /// The case in words.
    pub name: &'static str,
    /// The params object.
    pub params: Value,
    /// The result.
    pub result: Value,
}

/// A call that is refused.
#[derive(Debug, Clone)]
pub struct ErrorExample {
    /// The case in words.
    pub name: &'static str,
    /// The params, valid or not.
    pub params: Value,
    /// The error.
    pub error: RpcError,
}
