/// <reference path="../../sdk-js/kero.d.ts" />

/** @type {import("../../sdk-js/kero").Transform} */
export default async function handle(event) {
  const sender = event.message.sender;
  const kept = kero.kv.get(`customer/${sender}`);
  const customer = kept ? JSON.parse(kept) : await lookUp(sender);
  if (customer === null) return;
  if (!kept) kero.kv.set(`customer/${sender}`, customer, 3600);
  event.data.customer = customer;
  return event;
}

async function lookUp(sender) {
  const answer = await fetch(`https://crm.example/api/customers?jid=${encodeURIComponent(sender)}`, {
    headers: { authorization: `Bearer ${kero.config.token}` },
  });
  if (answer.status === 404) return null;
  if (answer.status >= 500) throw new kero.Retry(`the CRM answers ${answer.status}`);
  const { name, tier } = await answer.json();
  console.info(`asked the CRM: tier ${tier}`);
  return { name, tier };
}
