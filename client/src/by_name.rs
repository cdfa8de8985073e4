//! jsonrpsee's client traits on [`Client`], with params by name.
//!
//! The generated calls take one params struct and put it into an array, `[{…}]`. The contract has the struct
//! itself as `params`. Here the array is taken off again.
//!
//! An array of exactly one object becomes that object. All other params pass as they are, so that a gateway can
//! refuse them in its own words. The `[id]` with which jsonrpsee ends a subscription does not come by here.

use std::fmt;

use jsonrpsee::core::{
    client::{BatchResponse, ClientT, Error as RpcClientError, Subscription, SubscriptionClientT},
    params::BatchRequestBuilder,
    traits::ToRpcParams,
};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::{Client, Error};

/// Params that are JSON already.
pub(crate) struct Prepared(pub(crate) Option<Box<RawValue>>);

impl ToRpcParams for Prepared {
    fn to_rpc_params(self) -> Result<Option<Box<RawValue>>, serde_json::Error> {
        Ok(self.0)
    }
}

fn by_name(params: impl ToRpcParams) -> Result<Option<Box<RawValue>>, serde_json::Error> {
    Ok(params.to_rpc_params()?.map(unwrapped))
}

fn unwrapped(params: Box<RawValue>) -> Box<RawValue> {
    if !params.get().starts_with('[') {
        return params;
    }
    // One scan of the text: it alone tells `[{"a":1}]` from `[{"a":1},{"b":2}]`. The object is then copied
    // without a second look at it.
    match serde_json::from_str::<[&RawValue; 1]>(params.get()) {
        Ok([object]) if object.get().starts_with('{') => object.to_owned(),
        _ => params,
    }
}

impl ClientT for Client {
    async fn notification<P: ToRpcParams + Send>(
        &self,
        method: &str,
        params: P,
    ) -> Result<(), RpcClientError> {
        let params = by_name(params)?;
        Ok(self.connection.notify(method, params).await?)
    }

    async fn request<R: DeserializeOwned, P: ToRpcParams + Send>(
        &self,
        method: &str,
        params: P,
    ) -> Result<R, RpcClientError> {
        let params = by_name(params)?;
        let result = self.connection.call(method, params.as_deref()).await?;
        serde_json::from_str(result.get()).map_err(|problem| Error::bad_result(method, problem).into())
    }

    async fn batch_request<'a, R: DeserializeOwned + fmt::Debug + 'a>(
        &self,
        batch: BatchRequestBuilder<'a>,
    ) -> Result<BatchResponse<'a, R>, RpcClientError> {
        let calls =
            batch.build()?.into_iter().map(|(method, params)| (method, params.map(unwrapped))).collect();
        let answers = self.connection.batch(calls).await?;
        let mut succeeded = 0;
        let mut entries = Vec::with_capacity(answers.len());
        for answer in answers {
            entries.push(match answer {
                Ok(result) => {
                    succeeded += 1;
                    let read = serde_json::from_str(result.get());
                    Ok(read.map_err(|problem| Error::bad_payload("a result of a batch", problem))?)
                }
                Err(refusal) => Err(refusal),
            });
        }
        let failed = entries.len() - succeeded;
        Ok(BatchResponse::new(succeeded, entries, failed))
    }
}

impl SubscriptionClientT for Client {
    async fn subscribe<'a, N: DeserializeOwned, P: ToRpcParams + Send>(
        &self,
        subscribe_method: &'a str,
        params: P,
        unsubscribe_method: &'a str,
    ) -> Result<Subscription<N>, RpcClientError> {
        let params = by_name(params)?;
        Ok(self.connection.subscribe(subscribe_method, params, unsubscribe_method).await?)
    }

    async fn subscribe_to_method<N: DeserializeOwned>(
        &self,
        method: &str,
    ) -> Result<Subscription<N>, RpcClientError> {
        Ok(self.connection.subscribe_to_method(method).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_array_of_one_object_is_taken_off() {
        for (given, sent) in [
            (r#"[{"a":1}]"#, r#"{"a":1}"#),
            (r#"[ {"a":[{"b":"]},{"}]} ]"#, r#"{"a":[{"b":"]},{"}]}"#),
            (r#"[{"a":1},{"b":2}]"#, r#"[{"a":1},{"b":2}]"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("[4021882117]", "[4021882117]"),
            (r#"[["a"]]"#, r#"[["a"]]"#),
            ("[]", "[]"),
        ] {
            let params = RawValue::from_string(given.to_owned()).expect("the params are JSON");
            assert_eq!(unwrapped(params).get(), sent);
        }
    }
}
