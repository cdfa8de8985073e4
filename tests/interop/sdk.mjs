// The stock client of the frame protocol against a gateway: node sdk.mjs <module> <url> <token>
//
// Prints one JSON object: what it saw. Run by `tests/it/interop.rs`.

const [module, url, token] = process.argv.slice(2);
const { GatewayClient } = await import(module);

const seen = { events: {}, gaps: [], warnings: [] };
process.on("warning", (warning) => seen.warnings.push(String(warning)));

const client = new GatewayClient({
  url,
  token,
  role: "operator",
  scopes: ["operator.read", "operator.write", "operator.admin"],
  onHelloOk: (hello) => talk(hello).then(finish, fail),
  onEvent: ({ event }) => {
    seen.events[event] = (seen.events[event] ?? 0) + 1;
  },
  onGap: (gap) => seen.gaps.push(gap),
  onConnectError: fail,
});

async function talk(hello) {
  seen.protocol = hello.protocol;
  seen.health = (await client.request("health", {})).ok;
  seen.log = Array.isArray((await client.request("logs.tail", { limit: 5 })).lines);
  seen.presence = (await client.request("system-presence", {})).length;
  const started = await client.request("agent", { message: "one two three", idempotencyKey: "sdk-1" });
  seen.started = started.status;
  const done = await client.request(
    "agent",
    { message: "four five", idempotencyKey: "sdk-2" },
    { expectFinal: true },
  );
  seen.answer = done.result.payloads[0].text;
  seen.waited = (await client.request("agent.wait", { runId: "sdk-1" })).status;
  const chat = { sessionKey: "main", message: "hello", idempotencyKey: "sdk-3" };
  seen.chat = (await client.request("chat.send", chat)).status;
  await new Promise((done) => setTimeout(done, 500));
  seen.history = (await client.request("chat.history", { sessionKey: "main" })).messages.length;
  seen.sessions = (await client.request("sessions.list", {})).sessions.length;
  seen.refused = await client.request("no.such", {}).then(
    () => "served",
    (error) => error.message,
  );
}

function finish() {
  client.stop();
  process.stdout.write(`${JSON.stringify(seen)}\n`, () => process.exit(0));
}

function fail(error) {
  process.stderr.write(`${error?.stack ?? error}\n`, () => process.exit(1));
}

setTimeout(() => fail(new Error(`not done in time: ${JSON.stringify(seen)}`)), 20_000);
client.start();
