// The stock client of the frame protocol against a gateway: node sdk.mjs <module> <url> <token>
//
// Prints one JSON object: what it saw. The gateway must not approve devices by itself. Run by `tests/it/interop.rs`.

import { createHash, generateKeyPairSync, sign } from "node:crypto";

const [module, url, token] = process.argv.slice(2);
const { GatewayClient } = await import(module);

const seen = { events: {}, gaps: [], warnings: [] };
process.on("warning", (warning) => seen.warnings.push(String(warning)));

const scopes = ["operator.read", "operator.write", "operator.admin", "operator.pairing"];
const logError = (message) => seen.warnings.push(message);

// A client and what becomes of its first connection: `{ hello }`, or `{ refused }` with the reason of the pause.
function connect(options) {
  let client;
  const settled = new Promise((settle) => {
    let error;
    client = new GatewayClient({
      url,
      role: "operator",
      scopes,
      onHelloOk: (hello) => settle({ hello }),
      onConnectError: (cause) => (error = cause),
      onReconnectPaused: (pause) => settle({ refused: pause.detailCode, message: error?.message }),
      onGap: (gap) => seen.gaps.push(gap),
      ...options,
      hostDeps: { logError, ...options.hostDeps },
    });
  });
  client.start();
  return settled.then((outcome) => ({ client, ...outcome }));
}

async function talk() {
  const { client, hello } = await connect({
    token,
    onEvent: ({ event }) => {
      seen.events[event] = (seen.events[event] ?? 0) + 1;
    },
  });
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
  return client;
}

// A device with a key of its own, which is approved by `admin`, keeps its token and comes back with it.
async function pair(admin) {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const raw = publicKey.export({ format: "jwk" }).x;
  const deviceIdentity = {
    deviceId: createHash("sha256").update(Buffer.from(raw, "base64url")).digest("hex"),
    publicKeyPem: publicKey.export({ type: "spki", format: "pem" }),
    privateKeyPem: privateKey.export({ type: "pkcs8", format: "pem" }),
  };
  let stored = null;
  const device = {
    clientName: "cli",
    mode: "cli",
    scopes: ["operator.read"],
    deviceIdentity,
    hostDeps: {
      signDevicePayload: (key, payload) => sign(null, Buffer.from(payload), key).toString("base64url"),
      publicKeyRawBase64UrlFromPem: () => raw,
      loadDeviceAuthToken: () => stored,
      storeDeviceAuthToken: ({ token, scopes }) => (stored = { token, scopes }),
      clearDeviceAuthToken: () => (stored = null),
    },
  };

  // That it is refused is expected, so that what the client logs about it is no warning.
  const quiet = { ...device.hostDeps, logError: () => {} };
  const first = await connect({ ...device, hostDeps: quiet, token });
  seen.unpaired = first.refused;
  first.client.stop();
  const { pending } = await admin.request("device.pair.list", {});
  seen.pending = pending.map((request) => request.deviceId === deviceIdentity.deviceId);
  await admin.request("device.pair.approve", { requestId: pending[0].requestId });

  const approved = await connect({ ...device, token });
  seen.issued = approved.hello?.auth?.deviceToken;
  seen.stored = stored?.token === seen.issued;
  approved.client.stop();

  const again = await connect(device);
  seen.method = again.hello?.auth?.method ?? again.refused;
  seen.read = Array.isArray((await again.client.request("logs.tail", { limit: 1 })).lines);
  seen.denied = await again.client.request("device.pair.list", {}).then(
    () => "served",
    (error) => error.message,
  );
  again.client.stop();
}

function fail(error) {
  process.stderr.write(`${error?.stack ?? error}\n`, () => process.exit(1));
}

setTimeout(() => fail(new Error(`not done in time: ${JSON.stringify(seen)}`)), 25_000);
try {
  const client = await talk();
  await pair(client);
  client.stop();
  process.stdout.write(`${JSON.stringify(seen)}\n`, () => process.exit(0));
} catch (error) {
  fail(error);
}
