// Runs before the hook's own file: makes what hooks know (console, fetch, kero) of the natives, and turns what a hook
// returns into the lists of strings that the component answers. `sdk-js/index.d.ts` describes it for authors.
'use strict';
(() => {
  const native = globalThis.__native;
  delete globalThis.__native;

  const show = (values) => values.map((it) => {
    if (typeof it === 'string') return it;
    if (it instanceof Error) return `${it.name}: ${it.message}\n${it.stack}`;
    try { return JSON.stringify(it) ?? String(it); } catch { return String(it); }
  }).join(' ');
  const line = (level) => (...values) => native.log(level, show(values));
  globalThis.console = { debug: line('debug'), log: line('info'), info: line('info'), warn: line('warn'), error: line('error') };
  Math.random = () => native.random();

  // headers as pairs, from an object, a Map, or pairs
  const pairs = (headers) => {
    if (headers == null) return [];
    const entries = typeof headers[Symbol.iterator] === 'function' ? [...headers] : Object.entries(headers);
    return entries.map(([name, value]) => [String(name), String(value)]);
  };
  const headersOf = (list) => {
    const headers = new Map(list.map(([name, value]) => [name.toLowerCase(), value]));
    return { get: (name) => headers.get(String(name).toLowerCase()) ?? null, has: (name) => headers.has(String(name).toLowerCase()), [Symbol.iterator]: () => headers[Symbol.iterator]() };
  };
  globalThis.fetch = async (url, options = {}) => {
    const answer = JSON.parse(native.fetch(
      String(options.method ?? (options.body == null ? 'GET' : 'POST')), String(url), pairs(options.headers).flat(),
      options.body == null ? '' : String(options.body), options.timeout ?? null));
    return {
      status: answer.status, ok: answer.status >= 200 && answer.status < 300, headers: headersOf(answer.headers),
      text: async () => answer.body, json: async () => JSON.parse(answer.body),
    };
  };

  globalThis.TextEncoder = class TextEncoder {
    get encoding() { return 'utf-8'; }
    encode(text = '') { return Uint8Array.from(unescape(encodeURIComponent(String(text).toWellFormed())), (c) => c.charCodeAt(0)); }
  };
  globalThis.TextDecoder = class TextDecoder {
    get encoding() { return 'utf-8'; }
    decode(bytes = new Uint8Array()) { return decodeURIComponent(escape(Array.from(bytes, (b) => String.fromCharCode(b)).join(''))); }
  };

  class Retry extends Error {
    get name() { return 'Retry'; }
    get retry() { return true; }
  }
  const text = (value) => (typeof value === 'string' ? value : JSON.stringify(value));
  globalThis.kero = Object.freeze({
    Retry,
    get config() { return JSON.parse(native.config()); },
    kv: Object.freeze({
      get: (key) => native.kvGet(String(key)) ?? null,
      set: (key, value, ttl) => native.kvSet(String(key), text(value), ttl ?? null),
      delete: (key) => native.kvDelete(String(key)),
      increment: (key, by = 1, ttl) => native.kvIncrement(String(key), by, ttl ?? null),
    }),
    send: Object.freeze({ text: (chat, body, replyTo) => native.sendText(String(chat), String(body), replyTo ?? null) }),
  });

  let hook;
  const wanted = (name) => {
    const found = hook[name];
    if (typeof found !== 'function') throw new TypeError(`the script has no "export ${name === 'default' ? 'default function' : `function ${name}`}"`);
    return found;
  };
  const isObject = (it) => typeof it === 'object' && it !== null && !Array.isArray(it);
  const json = (data) => {
    if (!isObject(data)) throw new TypeError(`data must be an object, not ${show([data])}`);
    return JSON.stringify(data);
  };

  const verdict = (answer, event) => {
    if (answer === undefined) return ['pass'];
    if (answer === null) return ['drop', 'dropped'];
    if (answer === event) return ['replace', json(event.data)]; // the component sees whether it is the same
    if (isObject(answer) && answer.drop !== undefined) return ['drop', String(answer.drop)];
    if (isObject(answer) && Array.isArray(answer.to)) {
      return ['route', answer.data === undefined ? '' : json(answer.data), ...answer.to.map(String)];
    }
    if (isObject(answer) && answer.data !== undefined) return ['replace', json(answer.data)];
    throw new TypeError(`the hook returned ${show([answer])}; return the event, nothing, null, {drop}, {data} or {to}`);
  };

  const judgement = (answer) => {
    const [word, detail] = Array.isArray(answer) ? answer : [answer];
    if (word === 'success') return ['success'];
    if (word === 'retry') return detail == null ? ['retry'] : ['retry', String(Math.max(0, Math.trunc(Number(detail))))];
    if (word === 'dead') return ['dead', String(detail ?? 'judged dead')];
    throw new TypeError(`judge returned ${show([answer])}; return "success", "retry", ["retry", seconds] or ["dead", reason]`);
  };

  globalThis.__kero = Object.freeze({
    attach: (namespace) => { hook = namespace; },
    exports: () => Object.keys(hook).filter((name) => typeof hook[name] === 'function'),
    handle: async (context, event) => {
      return verdict(await wanted('default')(event, context), event);
    },
    shape: async (context, event, request) => {
      request.headers = Object.fromEntries(request.headers);
      const answer = await wanted('shape')(event, request, context) ?? request;
      if (!isObject(answer)) throw new TypeError(`shape returned ${show([answer])}; return the request`);
      const body = answer.body === undefined ? request.body : text(answer.body);
      return [String(answer.method ?? request.method), String(answer.path ?? request.path), body, ...pairs(answer.headers ?? request.headers).flat()];
    },
    judge: async (context, request, response, usual) => {
      if (typeof hook.judge !== 'function') return judgement(usual);
      request.headers = Object.fromEntries(request.headers);
      response.headers = Object.fromEntries(response.headers);
      return judgement(await hook.judge(request, response, usual, context) ?? usual);
    },
  });
})();
