// The main job with the generated client: create, pair, send, send asynchronously, receive the acknowledgement by
// webhook, read jobs page by page, handle a problem.
import assert from "node:assert/strict";
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import {
  instanceConnect, instanceCreate, instanceDelete, instanceStatusGet, jobGet, jobList, messageSendText, qrGet,
  webhookUpdate,
} from "./sdk/typescript";
import { client } from "./sdk/typescript/client.gen";
import type { Job, MessageAckEvent, MessageEvent } from "./sdk/typescript";

const need = (name: string): string => process.env[name] ?? assert.fail(`${name} is not set`);
const simulator = need("SIMULATOR_URL");
const secret = "a secret of this program";
const id = { instance_id: "typescript" };
const contact = "491514000101";

// throwOnError: false (the default) gives { data, error }; problems are typed
client.setConfig({ baseUrl: need("KERO_URL"), auth: need("KERO_KEY") });

type Delivery = MessageAckEvent | MessageEvent;
const isAck = (event: Delivery): event is MessageAckEvent => event.event === "message_ack";
const deliveries: Delivery[] = [];
const genuine = (body: Buffer, headers: IncomingHttpHeaders): boolean => {
  const expected = createHmac("sha256", secret).update(body).digest();
  const given = Buffer.from(String(headers["x-webhook-signature"] ?? ""), "hex");
  return given.length === expected.length && timingSafeEqual(given, expected);
};
const sink = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks);
    const ok = genuine(body, request.headers);
    if (ok) deliveries.push(JSON.parse(body.toString("utf8")) as Delivery);
    response.writeHead(ok ? 204 : 401).end();
  });
});

async function until<T>(what: string, ask: () => Promise<T | undefined> | T | undefined): Promise<T> {
  const end = Date.now() + 30_000;
  while (Date.now() < end) {
    const found = await ask();
    if (found !== undefined) return found;
    await new Promise((resume) => setTimeout(resume, 50));
  }
  assert.fail(`waited too long for ${what}`);
}

async function main(): Promise<void> {
  await new Promise<void>((ready) => sink.listen(0, "127.0.0.1", ready));
  const { port } = sink.address() as AddressInfo;
  await fetch(`${simulator}/admin/people`, { method: "POST", body: JSON.stringify({ phone: contact, name: "Ada" }) });

  // create
  const created = await instanceCreate({ body: { instance_id: id.instance_id, name: "SDK" } });
  assert.equal(created.response?.status, 201);
  assert.equal(created.data?.data.status, "disconnected");
  await webhookUpdate({
    path: id,
    body: { url: `http://127.0.0.1:${port}/`, secret, events: ["message", "message_ack"] },
    throwOnError: true,
  });

  // provoke a problem and read its code
  const twice = await instanceCreate({ body: { instance_id: id.instance_id } });
  assert.equal(twice.error?.code, "instance-exists");
  assert.equal(twice.error?.status, 409);
  const early = await messageSendText({ path: id, body: { phone: contact, message: "too early" } });
  assert.match(early.error?.code ?? "", /^instance-not-(paired|connected)$/);

  // pair
  await instanceConnect({ path: id, throwOnError: true });
  const code = await until("a QR code", async () => (await qrGet({ path: id })).data);
  assert.ok(typeof code === "object" && "code" in code);
  const scan = await fetch(`${simulator}/admin/mock-phone/scan-qr?phone=491514000100`, { method: "POST", body: code.code });
  assert.ok(scan.ok, await scan.text());
  await until("the connection", async () => {
    const { data } = await instanceStatusGet({ path: id, throwOnError: true });
    return data.status === "connected" ? true : undefined;
  });

  // send, and send asynchronously
  const sent = await messageSendText({ path: id, body: { phone: contact, message: "Hello" }, throwOnError: true });
  assert.equal(sent.data.status, "sent");
  const queued = [];
  for (let n = 0; n < 5; n += 1) {
    const { data, response } = await messageSendText({
      path: id,
      headers: { "X-Async": "true", "X-Correlation-Id": `typescript-${n}`, "Idempotency-Key": `typescript-${n}` },
      body: { phone: contact, message: `Number ${n}` },
      throwOnError: true,
    });
    assert.equal(response.status, 202);
    queued.push(data);
  }

  // each ends in one acknowledgement, by webhook
  for (const { correlation_id, message_id } of queued) {
    const ack = await until("an acknowledgement", () =>
      deliveries.filter(isAck).find((event) => event.data.correlation_id === correlation_id));
    assert.equal(ack.data.status, "sent");
    assert.equal(ack.data.message_id, message_id);
    assert.equal(ack.instance_id, id.instance_id);
  }

  // jobs, page by page
  const seen: Job[] = [];
  let cursor: string | undefined;
  let pages = 0;
  do {
    const { data } = await jobList({ path: id, query: { limit: 2, cursor }, throwOnError: true });
    seen.push(...data.data);
    cursor = data.next_cursor;
    pages += 1;
  } while (cursor !== undefined);
  assert.equal(new Set(seen.map((job) => job.id)).size, 6);
  assert.ok(pages >= 3);
  const one = await jobGet({ path: { ...id, correlation_id: "typescript-0" }, throwOnError: true });
  assert.equal(one.data.data.type, "text");
  const none = await jobGet({ path: { ...id, correlation_id: "nobody" } });
  assert.equal(none.error?.code, "job-not-found");

  await instanceDelete({ path: id, throwOnError: true });
  sink.close();
  console.log(`typescript: 6 messages sent, ${deliveries.length} deliveries verified, ${pages} pages of jobs`);
}

main().then(() => process.exit(0), (error: unknown) => {
  console.error(error);
  process.exit(1);
});
