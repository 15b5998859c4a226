/**
 * Talking to the server this page came from. Addresses are relative to where this file lies, so the
 * page works below any base path.
 */

/** Where the server's own addresses begin, with a slash at the end. */
export const base = new URL('../', import.meta.url);

/**
 * @typedef {{id: number, path: string, width: number, height: number, bytes?: number, modified?: any, sha256?: string, payload?: Record<string, any>}} Item
 * @typedef {Item & {rank: number, similarity: number, percentile: number|null, label?: string, duplicates?: number[]}} Hit
 * @typedef {{collection: string, hits: Hit[], next_cursor: string|null, query?: string, exact?: boolean, took_ms?: number}} SearchAnswer
 * @typedef {{done: number, total: number|null, rate?: number|null, eta_s?: number|null, message?: string}} Progress
 * @typedef {{id: string, kind: string, state: string, collection?: string, created?: string, started?: string, ended?: string, progress: Progress, failed_items?: {path: string, reason: string}[], failed_count?: number, result?: any, problem?: any}} Job
 */

/** What went wrong, in the server's words (RFC 9457) or ours where no server answered. */
export class Problem extends Error {
  /** @param {{status?: number, code?: string, title?: string, detail?: string, remedy?: string, request_id?: string}} body */
  constructor(body, retryAfter = null) {
    super(body.detail || body.title || 'Something went wrong.');
    this.name = 'Problem';
    this.status = body.status ?? 0;
    this.code = body.code ?? 'unknown';
    this.title = body.title ?? 'Something went wrong';
    this.detail = body.detail ?? '';
    this.remedy = body.remedy ?? '';
    this.requestId = body.request_id ?? '';
    /** Seconds the server asks us to wait, or null. */
    this.retryAfter = retryAfter;
  }
}

const KEY = 'akin-key';
let asking = null;
/** @type {(problem: Problem) => Promise<boolean>} */
let askForKey = async () => false;

/** The key of this tab, if the server wanted one. Kept for the session only. */
export const key = () => { try { return sessionStorage.getItem(KEY) ?? ''; } catch { return ''; } };
export const setKey = (value) => { try { if (value) sessionStorage.setItem(KEY, value); else sessionStorage.removeItem(KEY); } catch { /* storage is off: the key is asked for again */ } };

/** Sets what asks the person for a key; it answers whether one was given. */
export function onKeyWanted(ask) { askForKey = ask; }

/** Listeners told whether the server answers: `(reachable: boolean) => void`. */
const watchers = new Set();
export const onReach = (watch) => { watchers.add(watch); };
const reach = (yes) => { for (const watch of watchers) watch(yes); };

/** `/api/v1` and `path`, with parameters; absent ones are left out. */
export function address(path, params = {}) {
  const url = new URL(`api/v1${path}`, base);
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== null && value !== '') url.searchParams.set(name, String(value));
  }
  return url;
}

/** A path of a collection, its name escaped. */
export const within = (collection, rest = '') => `/collections/${encodeURIComponent(collection)}${rest}`;

/**
 * One request; a key that is refused is asked for until there is a good one or none is given. Throws `Problem`, or an AbortError when `signal` fires.
 * @param {string} method
 * @param {string|URL} path below `/api/v1`, or a whole address
 * @param {{json?: any, form?: FormData, params?: Record<string, any>, headers?: Record<string, string>, signal?: AbortSignal}} [options]
 */
export async function send(method, path, { json, form, params, headers = {}, signal } = {}) {
  const sent = { ...headers };
  const used = key();
  if (used) sent.authorization = `Bearer ${used}`;
  if (json !== undefined) sent['content-type'] = 'application/json';
  let response;
  try {
    response = await fetch(path instanceof URL ? path : address(path, params), {
      method, headers: sent, signal, credentials: 'omit', cache: method === 'GET' ? 'default' : 'no-store',
      body: form ?? (json !== undefined ? JSON.stringify(json) : undefined),
    });
  } catch (error) {
    if (error?.name === 'AbortError') throw error;
    reach(false);
    throw new Problem({ code: 'unreachable', title: 'Akin does not answer', detail: 'The program that serves this page is not running, or the network is down.', remedy: 'Start it again (akin serve); this page goes on by itself.' });
  }
  reach(true);
  if (response.ok) return response;
  const problem = await problemOf(response);
  if (response.status === 401) {
    // Another request may have brought a key meanwhile.
    if (key() === used) asking ??= Promise.resolve(askForKey(problem)).finally(() => { asking = null; });
    if (key() !== used || await asking) return send(method, path, { json, form, params, headers, signal });
  }
  throw problem;
}

/** Reads the problem an answer carries; proxies answer with pages of their own. */
async function problemOf(response) {
  const wait = Number.parseFloat(response.headers.get('retry-after') ?? '');
  let body = {};
  try {
    if ((response.headers.get('content-type') ?? '').includes('json')) body = await response.json();
  } catch { /* not JSON after all */ }
  const title = { 413: 'That is too large', 429: 'Too many requests', 401: 'A key is needed', 403: 'Not allowed', 503: 'Not ready', 504: 'It took too long' }[response.status];
  return new Problem({ title: title ?? `The server answered ${response.status}`, request_id: response.headers.get('x-request-id') ?? '', ...body, status: response.status }, Number.isFinite(wait) ? wait : null);
}

/** JSON of an answer, or null of an empty one. */
async function read(response) {
  if (response.status === 204) return null;
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/** @type {(path: string, params?: Record<string, any>, signal?: AbortSignal) => Promise<any>} */
export const get = async (path, params, signal) => read(await send('GET', path, { params, signal }));
/** @type {(path: string, json: any, signal?: AbortSignal) => Promise<any>} */
export const post = async (path, json, signal) => read(await send('POST', path, { json, signal }));
export const remove = async (path) => read(await send('DELETE', path));

/**
 * Posts a form with files.
 * @type {(path: string, form: FormData, signal?: AbortSignal, headers?: Record<string, string>) => Promise<any>}
 */
export const postForm = async (path, form, signal, headers) => read(await send('POST', path, { form, signal, headers }));

/**
 * Follows a job until it ends. Reads the event stream with `fetch`, since `EventSource` cannot send a
 * key; where the stream breaks off, asks again after a while.
 * @param {string} id
 * @param {(job: Job) => void} tell every state, the last one too
 * @param {AbortSignal} signal
 * @returns {Promise<Job|null>} the ended job; null when `signal` fired
 */
export async function follow(id, tell, signal) {
  let last = null;
  for (let pause = 500; !signal.aborted; pause = Math.min(pause * 2, 8000)) {
    try {
      const response = await send('GET', `/jobs/${encodeURIComponent(id)}/events`, { signal, headers: { accept: 'text/event-stream' } });
      for await (const event of eventsOf(response.body)) {
        pause = 500;
        last = JSON.parse(event.data);
        tell(last);
        if (event.event === 'end' || ended(last)) return last;
      }
    } catch (error) {
      if (error?.name === 'AbortError' || signal.aborted) return null;
      if (error instanceof Problem && [401, 403, 404].includes(error.status)) throw error;
    }
    await new Promise((done) => { setTimeout(done, pause); });
  }
  return null;
}

/** Whether a job is over. */
export const ended = (job) => ['done', 'failed', 'cancelled'].includes(job?.state);

/** Events of a `text/event-stream` body. */
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value.replaceAll('\r\n', '\n');
      for (let end = rest.indexOf('\n\n'); end >= 0; end = rest.indexOf('\n\n')) {
        const event = { event: 'message', data: '' };
        for (const line of rest.slice(0, end).split('\n')) {
          const [, field, text] = /^(\w+): ?(.*)$/.exec(line) ?? [];
          if (field === 'event') event.event = text;
          if (field === 'data') event.data += (event.data ? '\n' : '') + text;
        }
        rest = rest.slice(end + 2);
        if (event.data) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
