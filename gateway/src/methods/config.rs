//! `config.get`, `config.schema`, `config.set`, `config.patch`, `config.apply`.

use std::{sync::Arc, time::Duration};

use jsonrpsee::{
    Extensions,
    core::{RpcResult, async_trait},
};
use openclaw_schema::{
    ErrorCode, RpcError,
    methods::config::{
        ConfigApplyParams, ConfigGetResult, ConfigMethod, ConfigPatchParams, ConfigSchemaResult,
        ConfigSetParams, ConfigWriteResult, stale_base,
    },
    server::ConfigServer,
    types::NoParams,
};

use super::{Handlers, caller, internal, invalid, refuse};
use crate::{
    config::{Change, ChangeError, Changed, Config, config_schema},
    connection::Connection,
    reload::{Cause, Outcome, Refused},
};

#[async_trait]
impl ConfigServer for Handlers {
    async fn config_get(&self, _: NoParams) -> RpcResult<ConfigGetResult> {
        let config = Arc::clone(&self.context.config);
        Ok(tokio::task::spawn_blocking(move || config.read()).await.map_err(internal)?)
    }

    async fn config_schema(&self, _: NoParams) -> RpcResult<ConfigSchemaResult> {
        Ok(tokio::task::spawn_blocking(config_schema).await.map_err(internal)?)
    }

    async fn config_set(
        &self,
        extensions: &Extensions,
        params: ConfigSetParams,
    ) -> RpcResult<ConfigWriteResult> {
        let wish = Wish {
            method: ConfigMethod::ConfigSet.name(),
            change: Change::Replace { raw: params.raw.into_string() },
            base: params.base_hash.map(|hash| hash.into_string()),
            note: String::new(),
            session: String::new(),
        };
        Ok(self.write(caller(extensions)?, wish).await.map_err(refuse)?)
    }

    async fn config_patch(
        &self,
        extensions: &Extensions,
        params: ConfigPatchParams,
    ) -> RpcResult<ConfigWriteResult> {
        let replace_paths = params.replace_paths.into_iter().map(|path| path.into_string()).collect();
        let wish = Wish {
            method: ConfigMethod::ConfigPatch.name(),
            change: Change::Patch { raw: params.raw.into_string(), replace_paths },
            base: params.base_hash.map(|hash| hash.into_string()),
            note: params.note.map(|note| note.into_string()).unwrap_or_default(),
            session: params.session_key.map(|key| key.into_string()).unwrap_or_default(),
        };
        let (method, note) = (wish.method, wish.note.clone());
        let mut result = self.write(caller(extensions)?, wish).await.map_err(refuse)?;
        if let Some(delay) = params.restart_delay_ms {
            self.restart_if_needed(&mut result, method, &note, delay.get());
        }
        Ok(result)
    }

    async fn config_apply(
        &self,
        extensions: &Extensions,
        params: ConfigApplyParams,
    ) -> RpcResult<ConfigWriteResult> {
        let wish = Wish {
            method: ConfigMethod::ConfigApply.name(),
            change: Change::Replace { raw: params.raw.into_string() },
            base: params.base_hash.map(|hash| hash.into_string()),
            note: params.note.map(|note| note.into_string()).unwrap_or_default(),
            session: params.session_key.map(|key| key.into_string()).unwrap_or_default(),
        };
        let (method, note) = (wish.method, wish.note.clone());
        let mut result = self.write(caller(extensions)?, wish).await.map_err(refuse)?;
        let delay = params.restart_delay_ms.map_or(0, |delay| delay.get());
        self.restart_if_needed(&mut result, method, &note, delay);
        Ok(result)
    }
}

/// A change that a caller asks for.
struct Wish {
    method: &'static str,
    change: Change,
    base: Option<String>,
    /// For the log, as the session.
    note: String,
    session: String,
}

impl Handlers {
    /// Writes the file, and takes over what needs no restart.
    async fn write(&self, connection: &Connection, wish: Wish) -> Result<ConfigWriteResult, RpcError> {
        let Wish { method, change, base, note, session } = wish;
        let context = Arc::clone(&self.context);
        let work = move || {
            let file = &context.config;
            let check = |text: &str| match &context.reloader {
                Some(reloader) => reloader.check(text).map(drop),
                None => Config::parse(text, file.path()).map(drop).map_err(|error| Refused::from(&error)),
            };
            let changed = file.change(&change, base.as_deref(), &check)?;
            let outcome = context.reloader.as_ref().map(|reloader| reloader.reload(Cause::Written));
            Ok::<_, ChangeError>((changed, outcome))
        };
        // A caller that goes meanwhile does not leave it half done.
        let (changed, outcome) = match tokio::task::spawn_blocking(work).await.map_err(internal)? {
            Ok(done) => done,
            Err(error) => return Err(unchanged(method, error)),
        };
        let Changed { config, hash, paths } = changed;
        if !paths.is_empty() {
            tracing::info!(
                target: "config",
                connection = connection.id(), note, session,
                "{method} has changed the configuration: {}", paths.join(", ")
            );
        }
        let (applied, waits_for_restart) = match outcome {
            Some(Outcome::Reloaded(reloaded)) => {
                (owned(&reloaded.applied), owned(&reloaded.waits_for_restart))
            }
            Some(Outcome::Unchanged) => (Vec::new(), Vec::new()),
            Some(Outcome::Kept(refused)) => {
                let message = format!("the file was written, and is refused now: {refused}");
                return Err(RpcError::new(ErrorCode::Unavailable, message));
            }
            // The program around the gateway decides what becomes of it.
            None => (Vec::new(), sections(&paths)),
        };
        Ok(ConfigWriteResult {
            ok: true,
            path: self.context.config.path().display().to_string(),
            config,
            hash,
            changed_paths: paths,
            applied,
            waits_for_restart,
            restart: None,
            restart_refused: None,
        })
    }

    /// Asks for a restart if something waits for one.
    fn restart_if_needed(&self, result: &mut ConfigWriteResult, method: &str, note: &str, delay_ms: u64) {
        if result.waits_for_restart.is_empty() {
            return;
        }
        let context = &self.context;
        let reason = if note.is_empty() { method } else { note };
        let refused = match &context.reloader {
            None => "this gateway is part of a program that takes over no configuration".to_owned(),
            Some(reloader) if !reloader.allows_restart() => {
                "commands.restart is false in the configuration".to_owned()
            }
            Some(_) => match context.lifecycle.request_restart(reason, Duration::from_millis(delay_ms)) {
                Ok(restart) => {
                    result.restart = Some(restart);
                    return;
                }
                Err(error) => error.to_string(),
            },
        };
        result.restart_refused = Some(refused);
    }
}

fn owned(keys: &[&'static str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// The sections that paths lie in.
fn sections(paths: &[String]) -> Vec<String> {
    let mut sections: Vec<String> =
        paths.iter().map(|path| path.split(['.', '[']).next().unwrap_or(path).to_owned()).collect();
    sections.dedup();
    sections
}

/// Why the configuration was not changed.
fn unchanged(method: &str, error: ChangeError) -> RpcError {
    match error {
        ChangeError::BaseStale => stale_base(method),
        ChangeError::BaseMissing => invalid(method, "/baseHash", &error.to_string()),
        ChangeError::Raw(_) | ChangeError::NothingHidden { .. } | ChangeError::Shrinks { .. } => {
            invalid(method, "/raw", &error.to_string())
        }
        ChangeError::Invalid(refused) => invalid(method, "/raw", &refused.message),
        ChangeError::Edit(error) => {
            let mut message = error.to_string().lines().next().unwrap_or_default().to_owned();
            if let Some(source) = std::error::Error::source(&error) {
                message.push_str(&format!(": {source}"));
            }
            RpcError::new(ErrorCode::Unavailable, message)
        }
    }
}
