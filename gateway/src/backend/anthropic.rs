//! The Messages API of Anthropic: the request, and what its events tell.

use serde_json::{Map, Value, json};

use super::{
    BackendRequest, TextSink, TurnAuthor,
    failure::{Failure, Who},
    reading::Reading,
    settings::{ModelRow, ProviderSettings},
    sse::Event,
    thinking::{self, AnthropicThinking, Manner},
};

/// The path of requests, below the base URL without `/v1`.
pub(super) const PATH: &str = "/v1/messages";
/// The path of the list of models, likewise.
pub(super) const MODELS_PATH: &str = "/v1/models?limit=1000";
/// The version of the API that is spoken, header `anthropic-version`.
pub(super) const VERSION: &str = "2023-06-01";

/// The bound of an answer where nobody names one: the API asks for a bound, and every model takes this.
const DEFAULT_MAX_TOKENS: u64 = 8192;

/// The body of a request.
pub(super) fn body(
    provider: &ProviderSettings,
    row: &ModelRow,
    params: &Map<String, Value>,
    manner: Manner,
    request: &BackendRequest,
) -> Value {
    let turn = |role: &str, text: &str| json!({ "role": role, "content": text });
    // The API takes no blank turn, and none of the model's before the first of the user's.
    let mut messages: Vec<Value> = request
        .history
        .iter()
        .filter(|said| !said.text.trim().is_empty())
        .skip_while(|said| said.author == TurnAuthor::Assistant)
        .map(|said| match said.author {
            TurnAuthor::User => turn("user", &said.text),
            TurnAuthor::Assistant => turn("assistant", &said.text),
        })
        .collect();
    messages.push(turn("user", &request.message));
    let max_tokens = params.get("maxTokens").and_then(Value::as_u64).or(row.max_tokens);
    let max_tokens = max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
    let told = manner.thinking.and_then(|level| thinking::anthropic(row, level, max_tokens));
    let max_tokens = match told {
        Some(AnthropicThinking::Budget { max_tokens, .. }) => max_tokens,
        _ => max_tokens,
    };
    let mut body = json!({
        "model": row.id, "max_tokens": max_tokens, "messages": messages, "stream": true,
    });
    match told {
        None => {}
        Some(AnthropicThinking::Disabled) => body["thinking"] = json!({ "type": "disabled" }),
        Some(AnthropicThinking::Budget { tokens, .. }) => {
            body["thinking"] = json!({ "type": "enabled", "budget_tokens": tokens });
        }
        Some(AnthropicThinking::Adaptive(effort)) => {
            body["thinking"] = json!({ "type": "adaptive" });
            if let Some(effort) = effort {
                body["output_config"] = json!({ "effort": effort });
            }
        }
    }
    if provider.base_url.starts_with("https://api.anthropic.com")
        && let Some(is_fast) = manner.fast
    {
        body["service_tier"] = json!(if is_fast { "auto" } else { "standard_only" });
    }
    if let Some(prompt) = &request.extra_system_prompt {
        body["system"] = json!(prompt);
    }
    // A model that thinks takes no other sampling than its own.
    let is_thinking = !matches!(told, None | Some(AnthropicThinking::Disabled));
    let sampling: &[&str] = if is_thinking { &[] } else { &["temperature", "top_p"] };
    for name in sampling.iter().copied().chain(["service_tier"]) {
        if let Some(value) = params.get(name) {
            body[name] = value.clone();
        }
    }
    body
}

/// Takes in one event. Text goes to `output`.
pub(super) fn read(
    who: Who<'_>,
    event: &Event,
    reading: &mut Reading,
    output: &TextSink,
) -> Result<(), Failure> {
    let told: Value =
        serde_json::from_str(&event.data).map_err(|_| who.garbled("an event that is no JSON"))?;
    match told.get("type").and_then(Value::as_str).unwrap_or_default() {
        "error" => return Err(who.said(None, &told)),
        "message_start" => read_usage(told.pointer("/message/usage"), reading),
        "content_block_start" => {
            if let Some(text) = told.pointer("/content_block/text").and_then(Value::as_str)
                && !text.is_empty()
            {
                output.push(text);
            }
        }
        // What a model thinks comes as `thinking`, and is not part of its answer.
        "content_block_delta" => {
            if let Some(text) = told.pointer("/delta/text").and_then(Value::as_str) {
                output.push(text);
            }
        }
        "message_delta" => {
            read_usage(told.get("usage"), reading);
            if let Some(reason) = told.pointer("/delta/stop_reason").and_then(Value::as_str) {
                reading.refused |= reason == "refusal";
                reading.stop_reason = Some(stop_reason(reason).to_owned());
            }
        }
        "message_stop" => reading.finished = true,
        // `ping`, the end of a block, and what later versions add.
        _ => {}
    }
    Ok(())
}

/// The counts in `usage`; what it does not name stays.
pub(super) fn read_usage(usage: Option<&Value>, reading: &mut Reading) {
    let Some(usage) = usage else { return };
    let counts = [
        ("input_tokens", &mut reading.usage.input),
        ("output_tokens", &mut reading.usage.output),
        ("cache_read_input_tokens", &mut reading.usage.cache_read),
        ("cache_creation_input_tokens", &mut reading.usage.cache_write),
    ];
    for (name, count) in counts {
        *count = usage.get(name).and_then(Value::as_u64).unwrap_or(*count);
    }
}

/// Anthropic's reason in the word that every provider of ours uses.
pub(super) fn stop_reason(reason: &str) -> &str {
    match reason {
        "end_turn" | "stop_sequence" => "stop",
        "max_tokens" => "length",
        reason => reason,
    }
}
