/// <reference path="../../sdk-js/kero.d.ts" />

/** @type {import("../../sdk-js/kero").Shape} */
export function shape(event, request) {
  request.body = { text: line(event) };
  return request;
}

/** Slack answers 429 with the seconds to wait, and 4xx for bodies that it will never take. @type {import("../../sdk-js/kero").Judge} */
export function judge(request, response, usual) {
  if (response.status === 429) return ['retry', Number(response.headers['retry-after'] ?? 60)];
  if (response.status >= 400 && response.status < 500) return ['dead', `Slack says ${response.body}`];
  return usual;
}

function line({ message, ack, data, instance }) {
  if (ack) return `:${ack.status === 'sent' ? 'white_check_mark' : 'x'}: ${instance} ${ack.correlationId} ${ack.error ?? ''}`.trim();
  return `*${data.sender_name ?? message.sender}*: ${message.text ?? `[${message.kind}]`}`;
}
