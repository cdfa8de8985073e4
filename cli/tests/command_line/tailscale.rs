//! A gateway that tailscale makes known: what is asked of `tailscale`, how it is refused, what is undone, and what comes
//! through. `tailscale.sh` stands in for the program, and this file for its daemon.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    process::{Home, signal},
    server::{Server, record},
};

/// A token that others may be let in with.
const TOKEN: &str = "0123456789abcdef0123";
/// A start that tailscale makes known to the tailnet.
const SERVE: [&str; 9] =
    ["gateway", "run", "--allow-unconfigured", "--port", "0", "--token", TOKEN, "--tailscale", "serve"];

/// A machine with a stand-in for tailscale.
pub(crate) struct Machine {
    pub(crate) home: Home,
    standin: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let standin = tempfile::tempdir().expect("a directory can be made");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/command_line/tailscale.sh");
        symlink(script, standin.path().join("tailscale")).expect("a link can be made");
        let path = format!("{}:/usr/bin:/bin", standin.path().display());
        let home = Home::new().with("PATH", path).with("STANDIN", standin.path().display().to_string());
        Self { home, standin }
    }

    /// Lets something go wrong from now on.
    fn plays(self, play: &str) -> Self {
        fs::write(self.standin.path().join("play"), play).expect("a file can be written");
        self
    }

    /// Where the stand-in keeps what it was told.
    pub(crate) fn standin(&self) -> &Path {
        self.standin.path()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.standin.path().join(name)).unwrap_or_default()
    }

    /// What tailscale was asked so far, but for questions.
    pub(crate) fn asked(&self) -> Vec<String> {
        let calls = self.file("calls");
        calls.lines().filter(|call| !call.starts_with("status")).map(str::to_owned).collect()
    }

    /// Waits until tailscale has been asked so many things, but for questions.
    fn await_asked(&self, count: usize) -> Vec<String> {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let asked = self.asked();
            if asked.len() >= count {
                return asked;
            }
            assert!(Instant::now() < patience, "tailscale was asked no more than {asked:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where tailscale was told to bring what others ask.
    pub(crate) fn port(&self) -> u16 {
        let asked = self.asked();
        let serve = asked.iter().rev().find(|call| call.contains("--bg=false")).expect("it was asked");
        serve.rsplit(' ').next().and_then(|port| port.parse().ok()).expect("a port is its last word")
    }

    fn note(&self) -> std::path::PathBuf {
        self.home.path().join(".openclaw/gateway/tailscale.json")
    }

    fn start(&self, more: &[&str]) -> Server {
        Server::start(&self.home, SERVE.iter().chain(more).copied())
    }
}

/// Plays the daemon: passes one connection after the other on to `port`, as the tailnet's `client` with the marks that
/// the real one leaves. Gives its own address.
fn daemon(port: u16, client: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    thread::spawn(move || {
        for incoming in listener.incoming() {
            let mut incoming = incoming.expect("it is accepted");
            let mut outgoing = TcpStream::connect(("127.0.0.1", port)).expect("the gateway listens");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && incoming.read(&mut byte).expect("it is sent") == 1 {
                head.push(byte[0]);
            }
            head.truncate(head.len() - 2);
            let marks = format!(
                "X-Forwarded-For: {client}\r\nX-Forwarded-Host: ada.tail1234.ts.net\r\nX-Forwarded-Proto: https\r\n\r\n"
            );
            outgoing.write_all(&[&head, marks.as_bytes()].concat()).expect("the gateway reads");
            let copy = |from: &TcpStream, to: &TcpStream| {
                let clone = |stream: &TcpStream| stream.try_clone().expect("it is open");
                let (mut from, mut to) = (clone(from), clone(to));
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    to.shutdown(Shutdown::Write)
                })
            };
            copy(&incoming, &outgoing);
            copy(&outgoing, &incoming);
        }
    });
    address
}

/// Sends one request without any help, and gives the whole answer.
fn request(address: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    let length = body.len();
    let text = format!("{head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is text");
    answer
}

#[test]
fn others_reach_the_gateway_through_a_port_that_is_for_tailscale_alone() {
    let machine = Machine::new();
    let server = machine.start(&[]);
    assert!(
        server.said.contains("https://ada.tail1234.ts.net/ (wss://ada.tail1234.ts.net)"),
        "{}",
        server.said
    );
    let port = machine.port();
    assert_eq!(machine.asked(), [format!("serve --yes --bg=false {port}")]);
    let record = record(&machine.home.path().join(".openclaw"));
    assert_eq!(record["tailscaleUrl"], "wss://ada.tail1234.ts.net");
    assert_ne!(record["port"], port);

    // As the tailnet would: the real command line through the real headers.
    let tailnet = daemon(port, "100.64.0.9");
    let url = format!("ws://{tailnet}");
    let elsewhere = Home::new();
    let health = elsewhere.run(["gateway", "health", "--url", &url, "--token", TOKEN, "--json"]).json(0);
    assert_eq!(health["ok"], true);
    let post = format!("POST /rpc HTTP/1.1\r\nhost: ada.tail1234.ts.net\r\nauthorization: Bearer {TOKEN}");
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"health"}"#;
    let own_page = format!("{post}\r\norigin: https://ada.tail1234.ts.net");
    assert!(request(tailnet, &own_page, call).starts_with("HTTP/1.1 200"));
    let foreign_page = format!("{post}\r\norigin: https://evil.example");
    assert!(request(tailnet, &foreign_page, call).starts_with("HTTP/1.1 403"));

    // Being on this host gains nothing there: who guesses is locked out, at the address that tailscale names.
    let guess = |address| {
        let head = "POST /rpc HTTP/1.1\r\nhost: ada.tail1234.ts.net\r\nauthorization: Bearer wrong";
        request(address, head, call)
    };
    let mut answers = (0..20).map(|_| guess(tailnet));
    assert!(answers.any(|answer| answer.starts_with("HTTP/1.1 429")), "nobody was locked out");
    assert!(guess(daemon(port, "100.64.0.10")).starts_with("HTTP/1.1 401"), "others are not");
    assert_eq!(machine.home.run(["gateway", "health", "--token", TOKEN]).code, Some(0), "nor is this host");

    // Whoever finds the port without being tailscale is turned away.
    let told = request(([127, 0, 0, 1], port).into(), &post, call);
    assert!(
        told.starts_with("HTTP/1.1 403") && told.contains("names the client in X-Forwarded-For"),
        "{told}"
    );

    let status = machine.home.run(["gateway", "status", "--no-probe", "--json"]).json(0);
    assert_eq!(status["gateway"]["tailscaleUrl"], "wss://ada.tail1234.ts.net");
    let codes = ["gateway", "call", "device.pair.setupCode", "--token", TOKEN, "--json"];
    assert_eq!(machine.home.run(codes).json(0)["gatewayUrl"], "wss://ada.tail1234.ts.net");

    assert!(!machine.file("env").contains(TOKEN), "tailscale gets no secret");
    assert_eq!(server.stop(Signal::TERM).0, Some(0));
    assert_eq!(machine.asked()[1..], ["serve ended"], "nothing is reset that was not to be");
    assert!(!machine.note().exists());
    TcpStream::connect(("127.0.0.1", port)).expect_err("the port is closed");
}

#[test]
fn a_gateway_that_cannot_be_made_known_does_not_start() {
    for (play, code, words, hint) in [
        ("NeedsLogin", 78, "not logged in", "sudo tailscale up"),
        ("Stopped", 78, "tailscale is stopped", "sudo tailscale up"),
        ("NeedsMachineAuth", 78, "until an administrator", "admin/machines"),
        ("no-name", 78, "has no name in its tailnet", "MagicDNS"),
        ("no-daemon", 75, "the daemon of tailscale does not run", "sudo systemctl start tailscaled"),
        ("hangs", 75, "did not answer within 5 s", "--tailscale off"),
        ("nonsense", 75, "cannot be read", ""),
        (
            "denied",
            78,
            "tailscale says: sending serve config: Access denied",
            "sudo tailscale set --operator=$USER",
        ),
        (
            "not-enabled",
            78,
            "Funnel is not enabled on your tailnet",
            "https://login.tailscale.com/f/funnel?node=n1",
        ),
    ] {
        let machine = Machine::new().plays(play);
        let refused = machine.home.run(SERVE.iter().chain(&["--tailscale-reset-on-exit"]).copied());
        let said = refused.stderr.as_str();
        assert_eq!(refused.code, Some(code), "{play}: {said}");
        assert!(said.contains("error: ") && said.contains(words) && said.contains(hint), "{play}: {said}");
        assert!(!said.contains("canary") && !said.contains("listening on"), "{play}: {said}");
        assert!(!machine.asked().iter().any(|call| call.contains("reset")), "{play}: nothing was served");
        assert!(
            !machine.note().exists() && !machine.home.path().join(".openclaw/gateway/runtime.json").exists()
        );
    }
    let nobody = Home::new().with("PATH", "/nowhere");
    let refused = nobody.run(SERVE);
    assert!(refused.stderr.contains("tailscale is not installed"), "{refused:?}");
    assert_eq!(refused.code, Some(78));
}

#[test]
fn force_stops_nobody_for_a_gateway_that_tailscale_would_not_let_start() {
    let machine = Machine::new();
    let plain = ["gateway", "run", "--allow-unconfigured", "--port", "0", "--token", TOKEN];
    let server = Server::start(&machine.home, plain);
    fs::write(machine.standin().join("play"), "NeedsLogin").expect("a file can be written");
    let refused = machine.home.run(SERVE.iter().chain(&["--force"]).copied());
    assert!(refused.refused(78).contains("not logged in"), "{refused:?}");
    machine.home.run(["gateway", "health", "--token", TOKEN]).ok();
    assert_eq!(server.stop(Signal::TERM).0, Some(0));
}

#[test]
fn what_does_not_fit_tailscale_is_refused_before_it_is_asked() {
    for (args, words) in [
        (&["--tailscale", "serve", "--auth", "none"][..], "authentication is off (flag --auth)"),
        (
            &["--tailscale", "funnel", "--token", TOKEN],
            "needs the authentication mode \"password\", not \"token\"",
        ),
        (&["--tailscale", "serve", "--token", TOKEN, "--bind", "lan"], "listens on loopback alone"),
        (&["--tailscale", "serve", "--token", "short"], "at least 16"),
        (&["--tailscale", "funnel", "--password", "short"], "at least 8"),
    ] {
        let machine = Machine::new();
        let start = ["gateway", "run", "--allow-unconfigured", "--port", "0"];
        let refused = machine.home.run(start.iter().chain(args).copied());
        let said = refused.refused(78);
        assert!(said.contains(words) && said.contains("hint: "), "{args:?}: {said}");
        assert_eq!(machine.file("calls"), "", "{args:?}");
    }
}

#[test]
fn a_restart_keeps_what_tailscale_does_and_takes_over_what_changed() {
    let machine = Machine::new();
    let configure = |tailscale: &str| {
        let auth = "auth: { mode: 'password', password: 'correct horse' }";
        let text = format!("{{ gateway: {{ mode: 'local', {auth}, tailscale: {{ {tailscale} }} }} }}");
        machine.home.write(".openclaw/openclaw.json", &text);
    };
    configure("mode: 'serve'");
    let mut server = Server::start(&machine.home, ["gateway", "--port", "0"]);
    let port = machine.port();
    signal(&server.child, Signal::USR1);
    server.says("listening on");
    let tailnet = format!("ws://{}", daemon(port, "100.64.0.9"));
    let through = ["gateway", "health", "--url", &tailnet, "--password", "correct horse", "--json"];
    assert_eq!(Home::new().run(through).json(0)["ok"], true);
    assert_eq!(machine.asked().len(), 1, "tailscale noticed nothing: {:?}", machine.asked());

    configure("mode: 'funnel', resetOnExit: true");
    signal(&server.child, Signal::HUP);
    assert!(server.says("waits for a restart").contains("gateway.tailscale"));
    signal(&server.child, Signal::USR1);
    server.says("everybody on the internet");
    assert_eq!(machine.asked()[1..], ["serve ended".to_owned(), format!("funnel --yes --bg=false {port}")]);

    configure("mode: 'off'");
    signal(&server.child, Signal::USR1);
    server.says("listening on");
    assert_eq!(machine.await_asked(5)[3..], ["funnel ended", "funnel reset"]);
    TcpStream::connect(("127.0.0.1", port)).expect_err("the port is closed");
    server.stop(Signal::TERM);
}

#[test]
fn a_command_that_ends_is_started_again_and_that_is_said_once() {
    let machine = Machine::new().plays("dies");
    let mut server = machine.start(&[]);
    server.says("it is tried again");
    assert!(server.said.contains("tailscale says: error: the daemon went away"), "{}", server.said);
    server.says("reach this gateway");
    assert_eq!(machine.asked().len(), 2);
    server.stop(Signal::INT);
    assert_eq!(machine.asked()[2..], ["serve ended"]);
}

#[test]
fn a_tailscale_that_is_starting_is_waited_for() {
    let machine = Machine::new().plays("starting");
    machine.start(&[]).stop(Signal::TERM);
}

#[test]
fn tailscale_forgets_on_every_way_out() {
    let machine = Machine::new();
    for (nth, with) in [Signal::TERM, Signal::INT].into_iter().enumerate() {
        machine.start(&["--tailscale-reset-on-exit"]).stop(with);
        assert_eq!(machine.asked()[nth * 3 + 1..], ["serve ended", "serve reset"], "{with:?}");
    }

    // A second signal, while a run is in flight.
    let machine = Machine::new();
    let mut server = machine.start(&["--tailscale-reset-on-exit"]);
    let message = format!("message={}", "word ".repeat(2000));
    machine.home.run(["gateway", "call", "agent", "--token", TOKEN, &message]).ok();
    signal(&server.child, Signal::TERM);
    server.says("stopping");
    assert_eq!(server.stop(Signal::TERM).0, Some(130));
    assert_eq!(machine.asked()[1..], ["serve ended", "serve reset"]);
    assert!(!machine.note().exists());
}

#[test]
fn what_a_killed_gateway_left_is_undone() {
    let machine = Machine::new();
    let server = machine.start(&["--tailscale-reset-on-exit"]);
    server.stop(Signal::KILL);
    // The command ends with the gateway; only the reset is left to do.
    assert_eq!(machine.await_asked(2)[1..], ["serve ended"]);
    let note: Value =
        serde_json::from_slice(&fs::read(machine.note()).expect("there is a note")).expect("JSON");
    assert_eq!(note["resetOnExit"], true);
    let args = ["gateway", "run", "--allow-unconfigured", "--port", "0"];
    let server = Server::start(&machine.home, args);
    assert_eq!(machine.asked()[2..], ["serve reset"]);
    assert!(!machine.note().exists(), "{}", server.said);
    server.stop(Signal::TERM);
}
