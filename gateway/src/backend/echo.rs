//! The echo: a back end without a model, for first steps and for tests.

use std::{sync::Arc, time::Duration};

use openclaw_schema::methods::{agent::TokenUsage, models::ModelInfo};
use tokio_util::sync::CancellationToken;

use super::{Backend, BackendAnswer, BackendError, BackendFuture, BackendRequest, TextSink, cancelled};

/// Answers `You said: <message>`, word by word. A token is a word.
#[derive(Debug)]
pub struct EchoBackend {
    pause: Duration,
    models: Arc<[ModelInfo]>,
}

impl EchoBackend {
    /// An echo that rests for `pause` between two words.
    #[must_use]
    pub fn new(pause: Duration) -> Self {
        let model = ModelInfo {
            id: "echo-1".to_owned(),
            name: "Echo".to_owned(),
            provider: "echo".to_owned(),
            context_window: Some(8192),
            reasoning: false,
            tags: vec!["default".to_owned()],
            thinking_levels: Vec::new(),
            thinking_default: None,
            available: Some(true),
        };
        Self { pause, models: Arc::new([model]) }
    }
}

impl Backend for EchoBackend {
    fn models(&self) -> Arc<[ModelInfo]> {
        Arc::clone(&self.models)
    }

    fn run(&self, request: BackendRequest, output: TextSink) -> BackendFuture {
        let pause = self.pause;
        Box::pin(async move {
            let answer = format!("You said: {}", request.message);
            let mut words = answer.split_inclusive(char::is_whitespace).peekable();
            while let Some(word) = words.next() {
                output.push(word);
                if words.peek().is_some() {
                    rest(pause, &request.cancel).await?;
                }
            }
            let (input, output) = (tokens(&request.message), tokens(&answer));
            let usage = TokenUsage { input, output, total: input + output, ..TokenUsage::default() };
            Ok(BackendAnswer { usage, cost_usd: Some(0.0), model: None, stop_reason: "stop".to_owned() })
        })
    }
}

async fn rest(pause: Duration, cancel: &CancellationToken) -> Result<(), BackendError> {
    if pause.is_zero() {
        // Without a pause a long answer must still let others run, and see that it is no longer wanted.
        tokio::task::yield_now().await;
        return if cancel.is_cancelled() { Err(cancelled()) } else { Ok(()) };
    }
    tokio::select! {
        () = cancel.cancelled() => Err(cancelled()),
        () = tokio::time::sleep(pause) => Ok(()),
    }
}

fn tokens(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Mutex};

    use super::*;
    use crate::{backend::BackendErrorKind, settings::Agent};

    fn request(message: &str, echo: &EchoBackend) -> BackendRequest {
        BackendRequest {
            run_id: "k1".to_owned(),
            session_key: "agent:main:main".to_owned(),
            agent: Agent { id: "main".to_owned(), name: None, workspace: PathBuf::new(), model: None },
            model: echo.models()[0].clone(),
            history: Vec::new(),
            message: message.to_owned(),
            extra_system_prompt: None,
            thinking: None,
            fast_mode: None,
            meter: crate::backend::Meter::default(),
            cancel: CancellationToken::new(),
        }
    }

    fn collector() -> (TextSink, Arc<Mutex<Vec<String>>>) {
        let pieces = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&pieces);
        (TextSink::new(move |text| kept.lock().expect("no push panics").push(text.to_owned())), pieces)
    }

    #[tokio::test(start_paused = true)]
    async fn answers_word_by_word_and_counts_words() {
        let echo = EchoBackend::new(Duration::from_millis(5));
        let (sink, pieces) = collector();
        let answer = echo.run(request("hello  big\nworld", &echo), sink).await.expect("an echo answers");
        assert_eq!(answer.usage, TokenUsage { input: 3, output: 5, total: 8, ..TokenUsage::default() });
        assert_eq!(answer.stop_reason, "stop");
        assert_eq!(
            *pieces.lock().expect("no push panics"),
            ["You ", "said: ", "hello ", " ", "big\n", "world"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn stops_when_cancelled_with_and_without_a_pause() {
        for pause in [Duration::ZERO, Duration::from_secs(3600)] {
            let echo = EchoBackend::new(pause);
            let (sink, pieces) = collector();
            let request = request("hello", &echo);
            request.cancel.cancel();
            let error = echo.run(request, sink).await.expect_err("a cancelled answer is an error");
            assert_eq!(error.kind, BackendErrorKind::Unknown);
            assert_eq!(*pieces.lock().expect("no push panics"), ["You "]);
        }
    }
}
