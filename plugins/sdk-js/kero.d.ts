/** What plain `.js` hooks of the Kero gateway see. There is no network but `fetch`, no file, no timer. */

/** An event, as the hook before this one left it. */
export interface KeroEvent {
  /** Stable over retries and replays: use it to do something once. */
  readonly id: string;
  /** `message`, `message_ack`, `receipt`, `status`, … */
  readonly name: string;
  readonly instance: string;
  /** Unix milliseconds. */
  readonly timestamp: number;
  /** The facts of a `message`, as WhatsApp reported them. */
  readonly message?: {
    id: string; chat: string; sender: string; fromMe: boolean; isGroup: boolean; kind: string;
    text: string | null; replyTo: string | null;
  };
  /** The facts of a `message_ack`. */
  readonly ack?: { status: 'sent' | 'failed' | 'cancelled'; correlationId: string; messageId: string | null; error: string | null };
  /** The facts of a `receipt`. */
  readonly receipt?: { chat: string; sender: string; kind: string; ids: string[] };
  /** The `data` object of the webhook: what a transform may change. */
  data: Record<string, any>;
}

export interface Context {
  readonly plugin: string;
  readonly version: string;
  /** The endpoint that a delivery hook works for. */
  readonly endpoint: string | null;
  /** True in `kero plugin test`: nothing that is asked for is done. */
  readonly dryRun: boolean;
}

export type Verdict =
  | KeroEvent | undefined | void
  | null | { drop: string }
  | { data: Record<string, any> }
  | { to: string[]; data?: Record<string, any> };

/** `export default function handle(event, context)` */
export type Transform = (event: KeroEvent, context: Context) => Verdict | Promise<Verdict>;

export interface Request {
  method: string;
  /** Path and query under the endpoint's origin, beginning with one `/`. */
  path: string;
  headers: Record<string, string>;
  /** A text, or what becomes one by `JSON.stringify`. */
  body: any;
}

export interface Response {
  readonly status: number;
  readonly headers: Record<string, string>;
  /** The first 64 KiB. */
  readonly body: string;
}

/** `export function shape(event, request, context)` */
export type Shape = (event: KeroEvent, request: Request, context: Context) => Request | void | Promise<Request | void>;

export type Judgement = 'success' | 'retry' | ['success'] | ['retry', number?] | ['dead', string];

/** `export function judge(request, response, usual, context)`; optional. `usual` is how the gateway would judge. */
export type Judge = (request: Request, response: Response, usual: Judgement, context: Context) => Judgement | void | Promise<Judgement | void>;

declare global {
  const kero: {
    /** The operator's settings. */
    readonly config: Record<string, any>;
    /** Grant `kv`. Writes take effect together with the verdict. */
    readonly kv: {
      get(key: string): string | null;
      /** Objects are stored as JSON text. */
      set(key: string, value: string | object, ttlSeconds?: number): void;
      delete(key: string): void;
      increment(key: string, by?: number, ttlSeconds?: number): number;
    };
    /** Grant `send`. Queued together with the verdict; answers the correlation id of the later `message_ack`. */
    readonly send: { text(chat: string, text: string, replyTo?: string): string };
    /** Throw it to be called again later. Any other error means: this event will never work. */
    readonly Retry: new (why: string) => Error;
  };
  /** Grant `http`. At most 5 requests per event; redirects are not followed; `timeout` in milliseconds. */
  function fetch(url: string, options?: { method?: string; headers?: Record<string, string>; body?: string; timeout?: number }): Promise<{
    readonly status: number;
    readonly ok: boolean;
    readonly headers: { get(name: string): string | null; has(name: string): boolean };
    text(): Promise<string>;
    json(): Promise<any>;
  }>;
}
