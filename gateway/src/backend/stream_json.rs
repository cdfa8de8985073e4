//! What command-line back ends write as JSON: the lines of `claude -p --output-format stream-json` and of programs that
//! do alike, and single documents.

use serde_json::Value;

use super::{TextSink, anthropic, reading::Reading};

/// What one process has written so far.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// What its answer has told.
    pub(super) reading: Reading,
    /// Whether any text has gone out.
    pub(super) wrote: bool,
    /// Text of the current message has come in pieces: the whole message repeats it.
    in_pieces: bool,
    /// The next text belongs to another message than the last.
    begins: bool,
    /// What the program says went wrong.
    pub(super) failure: Option<String>,
}

impl Lines {
    /// Takes in one line. Text goes to `output`. What is no JSON is none of the program's words: notices of wrappers.
    pub(super) fn take(&mut self, line: &str, output: &TextSink) {
        let Ok(told) = serde_json::from_str::<Value>(line) else { return };
        // What helpers of the model say is not the answer.
        if told.get("parent_tool_use_id").is_some_and(|parent| !parent.is_null()) {
            return;
        }
        let text = |path: &str| told.pointer(path).and_then(Value::as_str).unwrap_or_default();
        match text("/type") {
            "stream_event" => {
                if text("/event/type") == "message_start" {
                    self.begins = true;
                }
                if text("/event/delta/type") == "text_delta" {
                    self.in_pieces = true;
                    self.write(text("/event/delta/text"), output);
                }
            }
            "assistant" => {
                let is_told = std::mem::take(&mut self.in_pieces);
                self.begins |= !is_told;
                let blocks = told.pointer("/message/content").and_then(Value::as_array).filter(|_| !is_told);
                for block in blocks.into_iter().flatten() {
                    self.write(block.get("text").and_then(Value::as_str).unwrap_or_default(), output);
                }
            }
            // As the Gemini command line writes it.
            "message" if text("/role") == "assistant" => self.write(text("/content"), output),
            // As the Codex command line writes it.
            "item.completed" if text("/item/type") == "agent_message" => {
                self.begins = true;
                self.write(text("/item/text"), output);
            }
            "turn.completed" => {
                let count = |path: &str| told.pointer(path).and_then(Value::as_u64).unwrap_or(0);
                let cached = count("/usage/cached_input_tokens");
                self.reading.usage.input = count("/usage/input_tokens").saturating_sub(cached);
                self.reading.usage.output = count("/usage/output_tokens");
                self.reading.usage.cache_read = cached;
                self.reading.finished = true;
            }
            "turn.failed" => self.failure = Some(text("/error/message").to_owned()),
            "result" => self.document(&told, output),
            _ => {}
        }
    }

    /// Takes in the document that ends an answer, or that is the whole of it.
    pub(super) fn document(&mut self, told: &Value, output: &TextSink) {
        let keys = ["result", "response", "text", "content", "message"];
        let text = keys.iter().find_map(|key| told.get(key)?.as_str()).unwrap_or_default();
        let is_error = told.get("is_error").and_then(Value::as_bool).unwrap_or(false);
        let subtype = told.get("subtype").and_then(Value::as_str).unwrap_or_default();
        self.reading.finished = true;
        anthropic::read_usage(told.get("usage"), &mut self.reading);
        self.reading.cost_usd = told.get("total_cost_usd").and_then(Value::as_f64);
        if is_error || subtype.starts_with("error") {
            self.failure = Some(if text.is_empty() { subtype.to_owned() } else { text.to_owned() });
        } else if !self.wrote {
            self.write(text, output);
        }
        if let Some(reason) = told.get("stop_reason").and_then(Value::as_str) {
            self.reading.stop_reason = Some(anthropic::stop_reason(reason).to_owned());
        }
    }

    fn write(&mut self, text: &str, output: &TextSink) {
        if text.is_empty() {
            return;
        }
        if std::mem::take(&mut self.begins) && self.wrote {
            output.push("\n\n");
        }
        self.wrote = true;
        output.push(text);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;

    fn take(told: &[Value]) -> (Lines, String) {
        let text = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&text);
        let output = TextSink::new(move |piece| kept.lock().expect("no push panics").push_str(piece));
        let mut lines = Lines::default();
        for line in told {
            lines.take(&line.to_string(), &output);
        }
        let text = text.lock().expect("no push panics").clone();
        (lines, text)
    }

    fn piece(text: &str) -> Value {
        json!({
            "type": "stream_event",
            "event": { "type": "content_block_delta", "delta": { "type": "text_delta", "text": text } },
        })
    }

    fn message(text: &str) -> Value {
        json!({ "type": "assistant", "message": { "content": [{ "type": "text", "text": text }] } })
    }

    #[test]
    fn each_text_comes_once() {
        let result = json!({
            "type": "result", "subtype": "success", "is_error": false, "result": "Hello you", "total_cost_usd": 0.5,
            "usage": { "input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 7 },
        });
        let (lines, text) = take(&[piece("Hello "), piece("you"), message("Hello you"), result.clone()]);
        assert_eq!(text, "Hello you");
        assert!(lines.reading.finished && lines.failure.is_none());
        assert_eq!(lines.reading.cost_usd, Some(0.5));
        assert_eq!((lines.reading.usage.input, lines.reading.usage.cache_read), (3, 7));
        assert_eq!(take(&[message("Hello you"), result.clone()]).1, "Hello you");
        assert_eq!(take(&[result]).1, "Hello you");
    }

    #[test]
    fn messages_are_apart_and_those_of_helpers_left_out() {
        let mut helper = message("aside");
        helper["parent_tool_use_id"] = json!("toolu_1");
        assert_eq!(take(&[message("one"), helper, message("two")]).1, "one\n\ntwo");
    }

    #[test]
    fn a_failed_result_is_a_failure() {
        let (lines, text) = take(&[json!({ "type": "result", "is_error": true, "result": "Please log in" })]);
        assert_eq!((lines.failure.as_deref(), text.as_str()), (Some("Please log in"), ""));
        let (lines, _) = take(&[json!({ "type": "result", "subtype": "error_max_turns" })]);
        assert_eq!(lines.failure.as_deref(), Some("error_max_turns"));
    }
}
