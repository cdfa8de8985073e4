//! A gateway made of answers: JSON-RPC over WebSocket, one thread per connection.

use std::{
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use serde_json::{Value, json};
use tungstenite::{
    Message,
    handshake::server::{ErrorResponse, Request, Response},
    http::StatusCode,
};

/// The token that the fake asks for.
pub(crate) const TOKEN: &str = "secret";

/// What the fake does with a call.
pub(crate) enum Answer {
    Result(Value),
    Error(Value),
    /// Never answers.
    Silence,
    /// Ends the connection.
    Close,
}

/// A running fake. It ends with the test process.
pub(crate) struct Fake {
    pub(crate) url: String,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    called: mpsc::Receiver<()>,
}

impl Fake {
    pub(crate) fn new(answer: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let url = format!("ws://{}", listener.local_addr().expect("a listener has an address"));
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (sender, called) = mpsc::channel();
        let (seen, answer) = (Arc::clone(&calls), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer, sender) = (Arc::clone(&seen), Arc::clone(&answer), sender.clone());
                thread::spawn(move || serve(stream, &seen, &*answer, &sender));
            }
        });
        Self { url, calls, called }
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> Vec<(String, Value)> {
        self.calls.lock().expect("no thread panics with the lock").clone()
    }

    /// Waits for the next call.
    pub(crate) fn wait_for_call(&self) {
        self.called.recv_timeout(std::time::Duration::from_secs(10)).expect("a call comes");
    }
}

fn serve(
    stream: TcpStream,
    calls: &Mutex<Vec<(String, Value)>>,
    answer: &dyn Fn(&str, &Value) -> Answer,
    called: &mpsc::Sender<()>,
) {
    #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
    let shake = |request: &Request, mut response: Response| {
        let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        if bearer != Some(&format!("Bearer {TOKEN}")) {
            let error = json!({ "jsonrpc": "2.0", "id": null, "error": {
                "code": -32020, "message": "unauthorized: gateway token mismatch",
                "data": { "code": "UNAUTHORIZED", "retryable": false },
            } });
            let mut refusal = ErrorResponse::new(Some(error.to_string()));
            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            refusal.headers_mut().insert("openclaw-gateway", "0.1.0".parse().expect("it is a header"));
            return Err(refusal);
        }
        for (name, value) in [
            ("openclaw-gateway", "0.1.0"),
            ("openclaw-dialect", "jsonrpc"),
            ("sec-websocket-protocol", "jsonrpc"),
        ] {
            response.headers_mut().insert(name, value.parse().expect("it is a header"));
        }
        Ok(response)
    };
    let Ok(mut socket) = tungstenite::accept_hdr(stream, shake) else { return };
    while let Ok(message) = socket.read() {
        let Ok(request) = serde_json::from_str::<Value>(message.to_text().unwrap_or_default()) else {
            continue;
        };
        let method = request["method"].as_str().unwrap_or_default().to_owned();
        let params = request["params"].clone();
        let reply = answer(&method, &params);
        calls.lock().expect("no thread panics with the lock").push((method, params));
        let _ = called.send(());
        let mut response = json!({ "jsonrpc": "2.0", "id": request["id"] });
        match reply {
            Answer::Result(result) => response["result"] = result,
            Answer::Error(error) => response["error"] = error,
            Answer::Silence => continue,
            Answer::Close => return,
        }
        if socket.send(Message::text(response.to_string())).is_err() {
            return;
        }
    }
}
