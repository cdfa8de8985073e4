//! A model to test against, in a process of its own: see `openclaw_tests::model_server`. The argument is the port to
//! listen on; without one it takes a free port. The base URL is written to stdout.

#![expect(clippy::print_stdout, reason = "whoever starts it reads the address")]

use openclaw_tests::model_server::ModelServer;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let server = ModelServer::listen(port).await;
    println!("{}", server.openai_url());
    server.forever().await;
}
