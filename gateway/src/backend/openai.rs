//! Chat completions as OpenAI defined them: the request, and what its events tell.

use serde_json::{Map, Value, json};

use super::{
    BackendRequest, TextSink, TurnAuthor,
    failure::{Failure, Who},
    reading::Reading,
    settings::{ModelRow, ProviderSettings},
    sse::Event,
    thinking::{self, Manner},
};

/// The path of requests, below the base URL.
pub(super) const PATH: &str = "/chat/completions";
/// The path of the list of models, below the base URL.
pub(super) const MODELS_PATH: &str = "/models";

/// The body of a request.
pub(super) fn body(
    provider: &ProviderSettings,
    row: &ModelRow,
    params: &Map<String, Value>,
    manner: Manner,
    request: &BackendRequest,
) -> Value {
    let turn = |role: &str, text: &str| json!({ "role": role, "content": text });
    let mut messages: Vec<Value> =
        request.extra_system_prompt.iter().map(|prompt| turn("system", prompt)).collect();
    messages.extend(request.history.iter().map(|said| match said.author {
        TurnAuthor::User => turn("user", &said.text),
        TurnAuthor::Assistant => turn("assistant", &said.text),
    }));
    messages.push(turn("user", &request.message));
    let is_openai = provider.base_url.starts_with("https://api.openai.com");
    let mut body = json!({ "model": row.id, "messages": messages, "stream": true });
    if !row.no_usage {
        body["stream_options"] = json!({ "include_usage": true });
    }
    if let Some(max) = params.get("maxTokens").and_then(Value::as_u64).or(row.max_tokens) {
        // OpenAI's newer models refuse the old name; other servers know only that.
        body[if is_openai { "max_completion_tokens" } else { "max_tokens" }] = json!(max);
    }
    if let Some(effort) = manner.thinking.and_then(|level| thinking::effort(row, level)) {
        // OpenRouter has an object of its own for it.
        if provider.base_url.contains("openrouter.ai") {
            body["reasoning"] = json!({ "effort": effort });
        } else {
            body["reasoning_effort"] = json!(effort);
        }
    }
    if is_openai && manner.fast == Some(true) {
        body["service_tier"] = json!("priority");
    }
    for name in ["temperature", "top_p", "chat_template_kwargs", "service_tier"] {
        if let Some(value) = params.get(name) {
            body[name] = value.clone();
        }
    }
    for name in ["extra_body", "extraBody"] {
        for (key, value) in params.get(name).and_then(Value::as_object).into_iter().flatten() {
            body[key] = value.clone();
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
    if event.data.trim() == "[DONE]" {
        reading.finished = true;
        return Ok(());
    }
    let chunk: Value =
        serde_json::from_str(&event.data).map_err(|_| who.garbled("an event that is no JSON"))?;
    if chunk.get("error").is_some_and(|error| !error.is_null()) {
        return Err(who.said(None, &chunk));
    }
    // Requests ask for one choice.
    if let Some(choice) = chunk.get("choices").and_then(|choices| choices.get(0)) {
        if let Some(text) = choice.pointer("/delta/content").and_then(Value::as_str)
            && !text.is_empty()
        {
            output.push(&reading.thoughts.answer_in(text));
        }
        if let Some(text) = choice.pointer("/delta/refusal").and_then(Value::as_str) {
            output.push(text);
            reading.refused = true;
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            reading.refused |= reason == "content_filter";
            reading.stop_reason = Some(reason.to_owned());
        }
    }
    if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
        let count = |path: &str| usage.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        let cached = count("/prompt_tokens_details/cached_tokens");
        reading.usage.input = count("/prompt_tokens").saturating_sub(cached);
        reading.usage.output = count("/completion_tokens");
        reading.usage.cache_read = cached;
        // OpenRouter tells what it takes.
        reading.cost_usd = usage.get("cost").and_then(Value::as_f64).or(reading.cost_usd);
    }
    Ok(())
}

/// The models in the answer to [`MODELS_PATH`]; `None` when it is not such an answer. Anthropic's is alike.
pub(super) fn models(answer: &Value) -> Option<Vec<ModelRow>> {
    /// The longest list that is taken over; the longest known one has a few hundred.
    const MAX_MODELS: usize = 5000;

    let row = |model: &Value| {
        let text = |key: &str| model.get(key).and_then(Value::as_str).map(str::to_owned);
        // OpenRouter, vLLM, llama.cpp.
        let window = ["/context_length", "/max_model_len", "/meta/n_ctx_train", "/max_input_tokens"];
        Some(ModelRow {
            id: text("id").filter(|id| !id.is_empty())?,
            name: text("display_name").or_else(|| text("name")),
            context_window: window.iter().find_map(|path| model.pointer(path)?.as_u64()),
            ..ModelRow::default()
        })
    };
    Some(answer.get("data")?.as_array()?.iter().take(MAX_MODELS).filter_map(row).collect())
}
