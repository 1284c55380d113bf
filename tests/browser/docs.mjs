// Swagger UI does the main job. See `run`.
import assert from "node:assert/strict";
import puppeteer from "puppeteer-core";

const { KERO_URL, KERO_KEY, SIMULATOR_URL, CHROMIUM, SHOTS } = process.env;
const CONTACT = "491514000801";
const violations = [];
const strangers = [];

const browser = await puppeteer.launch({
  executablePath: CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
});
try {
  const page = await browser.newPage();
  await page.setViewport({ width: 1400, height: 1000 });
  page.on("console", (message) => {
    if (/content.security.policy|refused to/i.test(message.text())) violations.push(message.text());
  });
  page.on("pageerror", (error) => violations.push(`error: ${error.message}`));
  await page.setRequestInterception(true);
  page.on("request", (request) => {
    const url = new URL(request.url());
    const own = request.url().startsWith(`${KERO_URL}/`) || url.protocol === "data:" || url.protocol === "blob:";
    if (!own) strangers.push(request.url());
    return own ? request.continue() : request.abort();
  });
  await page.evaluateOnNewDocument(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) =>
      window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
  });

  const response = await page.goto(`${KERO_URL}/docs`, { waitUntil: "load" });
  const policy = response.headers()["content-security-policy"];
  assert.match(policy, /^default-src 'none'; script-src( 'sha256-[A-Za-z0-9+/=]+')+; /);
  assert.doesNotMatch(policy, /unsafe-eval|script-src[^;]*unsafe-inline|https?:|\*/);
  for (const part of ["connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]) {
    assert.ok(policy.includes(part), part);
  }
  await page.waitForSelector(".opblock", { timeout: 20_000 });

  // all of it is there, the webhooks too
  const document = await (await fetch(`${KERO_URL}/openapi.json`)).json();
  const shown = new Set(await page.$$eval(".opblock-summary-path, .opblock-summary-path__deprecated",
    (items) => items.map((item) => item.dataset.path ?? item.textContent.replaceAll("\u200b", ""))));
  for (const path of Object.keys(document.paths)) assert.ok(shown.has(path), `${path} is not shown`);
  const text = await page.$eval("#ui", (element) => element.innerText);
  assert.match(text, /Webhooks/);
  const hooks = await page.$$eval(".webhooks .opblock, [class*=webhook] .opblock", (items) => items.length);
  assert.equal(hooks, Object.keys(document.webhooks).length, "the section on webhooks");

  // sign in, and stay signed in over a reload
  await page.click(".btn.authorize");
  await page.waitForSelector(".modal-ux input");
  const first = await page.$(".modal-ux .auth-container input[type=text], .modal-ux .auth-container input[type=password]");
  await first.type(KERO_KEY);
  await page.screenshot({ path: `${SHOTS}/authorize.png` });
  await page.click(".modal-ux .auth-container .btn.modal-btn.auth.authorize");
  await page.waitForSelector(".modal-ux .auth-container .btn.modal-btn.auth:not(.authorize)");
  await page.click(".modal-ux .btn-done");
  await page.reload({ waitUntil: "load" });
  await page.waitForSelector(".btn.authorize.locked", { timeout: 20_000 });

  // "Try it out": fills in what an operation asks for, executes it, reads the answer from the page
  const block = (id) => `.opblock[id$="-${id}"]`;
  const fill = async (selector, value) => {
    await page.waitForSelector(selector);
    await page.$eval(selector, (element, text) => {
      element.focus();
      const set = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(element), "value").set;
      set.call(element, text);
      element.dispatchEvent(new Event("input", { bubbles: true }));
      element.dispatchEvent(new Event("change", { bubbles: true }));
      element.blur(); // the page takes a text over when one leaves it
    }, value);
  };
  const open = async (id) => {
    const at = block(id);
    await page.waitForSelector(at);
    if (!(await page.$(`${at}.is-open`))) await page.click(`${at} .opblock-summary-control`);
    await page.waitForSelector(`${at} .opblock-body`);
    return at;
  };
  const execute = async (id, { parameters = {}, body } = {}) => {
    const at = await open(id);
    if (await page.$(`${at} .try-out__btn:not(.cancel, .reset)`)) await page.click(`${at} .try-out__btn`);
    for (const [name, value] of Object.entries(parameters)) {
      const input = `${at} tr[data-param-name="${name}"] :is(input, select)`;
      await page.waitForSelector(input);
      if ((await page.$eval(input, (element) => element.tagName)) === "SELECT") await page.select(input, value);
      else await fill(input, value);
    }
    if (body) await fill(`${at} textarea.body-param__text`, JSON.stringify(body));
    if (await page.$(`${at} .btn-clear`)) await page.click(`${at} .btn-clear`);
    await page.click(`${at} .execute`);
    const live = `${at} .live-responses-table`;
    await page.waitForSelector(`${live} .response-col_status`, { timeout: 40_000 });
    const status = await page.$eval(`${live} tbody .response-col_status`, (cell) => Number.parseInt(cell.innerText, 10));
    const answer = await page.$eval(`${live} tbody .response-col_description`, (cell) => cell.querySelector("pre")?.innerText ?? "");
    return { status, answer, json: () => JSON.parse(answer) };
  };
  const shop = { instance_id: "browser" };

  const created = await execute("instance_create", { body: { instance_id: "browser", name: "Swagger UI" } });
  assert.equal(created.status, 201, created.answer);
  assert.equal(created.json().data.instance_id, "browser");

  const qr = await execute("qr_get", { parameters: shop });
  assert.equal(qr.status, 200, qr.answer);
  await fetch(`${SIMULATOR_URL}/admin/people`, { method: "POST", body: JSON.stringify({ phone: CONTACT, name: "Ada" }) });
  const scan = await fetch(`${SIMULATOR_URL}/admin/mock-phone/scan-qr?phone=491514000800`, { method: "POST", body: qr.json().code });
  assert.ok(scan.ok, await scan.text());

  let status;
  for (let n = 0; n < 50 && status !== "connected"; n += 1) {
    status = (await execute("instance_status_get", { parameters: shop })).json().status;
  }
  assert.equal(status, "connected");

  const sent = await execute("message_send_text", {
    parameters: shop,
    body: { phone: CONTACT, message: "Hello from the page" },
  });
  assert.equal(sent.status, 200, sent.answer);
  const { message_id } = sent.json();
  const ledger = (await (await fetch(`${SIMULATOR_URL}/admin/ledger`)).text()).trim().split("\n").map((line) => JSON.parse(line));
  assert.ok(ledger.some((entry) => entry.id === message_id), "the message did not arrive at the simulated WhatsApp");

  const queued = await execute("message_send_text", {
    parameters: { ...shop, "X-Async": "true", "X-Correlation-Id": "from-the-page" },
    body: { phone: CONTACT, message: "And another" },
  });
  assert.equal(queued.status, 202, queued.answer);
  const job = await execute("job_get", { parameters: { ...shop, correlation_id: "from-the-page" } });
  assert.equal(job.json().data.correlation_id, "from-the-page");

  const problem = await execute("job_get", { parameters: { ...shop, correlation_id: "nobody" } });
  assert.equal(problem.status, 404);
  assert.match(problem.answer, /job-not-found/);

  // layout: nothing runs over the edge, wide or narrow
  for (const [name, width] of [["wide", 1400], ["narrow", 390]]) {
    await page.setViewport({ width, height: 1000 });
    await new Promise((resume) => setTimeout(resume, 300));
    const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    if (over > 0) {
      console.log(await page.evaluate(() => [...document.querySelectorAll("#ui *")]
        .filter((element) => element.getBoundingClientRect().right > window.innerWidth + 1 && !element.closest("pre"))
        .slice(0, 12).map((element) => `${element.tagName}.${element.className} ${element.getBoundingClientRect().right}`)));
      await page.screenshot({ path: `${SHOTS}/${name}-over.png`, fullPage: false });
    }
    assert.ok(over <= 0, `${name}: ${over} pixels over the edge`);
    await page.evaluate(() => window.scrollTo(0, 0));
    await page.screenshot({ path: `${SHOTS}/${name}-top.png` });
    await page.$eval(block("message_send_text"), (element) => element.scrollIntoView());
    await page.screenshot({ path: `${SHOTS}/${name}-send.png` });
    await page.$eval(".webhooks, [class*=webhook]", (element) => element.scrollIntoView());
    await page.screenshot({ path: `${SHOTS}/${name}-webhooks.png` });
  }

  const hidden = await page.evaluate(() => window.violations);
  assert.deepEqual([...violations, ...hidden], [], "violations of the policy, or errors");
  assert.deepEqual(strangers, [], "requests to somebody else");
  console.log("Swagger UI: signed in, 8 operations executed, 2 messages sent; no stranger asked, no violation");
} finally {
  await browser.close();
}
