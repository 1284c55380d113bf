/// <reference path="./kero.d.ts" />

/**
 * Called once for every delivery: make of the gateway's request the one that your endpoint understands.
 *
 * @type {import("./kero").Shape}
 */
export function shape(event, request) {
  request.path += `/${event.name}`;
  if (event.message) request.body = { who: event.message.sender, said: event.message.text };
  return request;
}

/**
 * Called for every answer. Without this function the gateway judges by the status.
 *
 * @type {import("./kero").Judge}
 */
export function judge(request, response, usual) {
  return response.status === 409 ? 'success' : usual;
}
