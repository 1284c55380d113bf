/// <reference path="./kero.d.ts" />

/**
 * Called once for every event that plugin.toml names. Return the event (changed or not), nothing to let it pass,
 * null or {drop: "why"} to drop it, {data} to replace its data, or {to: ["endpoint id"]} to choose who gets it.
 *
 * @type {import("./kero").Transform}
 */
export default function handle(event) {
  if (event.message?.fromMe) return { drop: 'own message' };
  const order = event.message?.text?.match(/order (\d+)/i);
  if (order) event.data.order = order[1];
  return event;
}
