//! A gateway that runs as long as the test wants it.

use std::{
    fs,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::process::Home;

/// How long a gateway may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running gateway with the token [`TOKEN`](crate::fake::TOKEN). It ends when this is dropped.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) port: u16,
}

impl Gateway {
    /// Starts a gateway on a free port, with its state in `home`, and waits until it serves.
    pub(crate) fn start(home: &Home) -> Self {
        let args = ["gateway", "run", "--allow-unconfigured", "--port", "0", "--token", crate::fake::TOKEN];
        let mut command = home.command(args);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
        let mut gateway = Self { child, port: 0 };
        let record = home.path().join(".openclaw/gateway/runtime.json");
        let begun = Instant::now();
        while gateway.port == 0 {
            assert!(begun.elapsed() < START_LIMIT, "the gateway does not start");
            thread::sleep(Duration::from_millis(10));
            let written = fs::read(&record).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            let port = written.and_then(|record| u16::try_from(record["port"].as_u64()?).ok());
            gateway.port = port.unwrap_or_default();
        }
        gateway
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
