/**
 * A stand-in for Akin's server, for tests of the page alone: the same addresses and shapes, pictures
 * drawn on the spot, and faults on demand (`POST /mock`). It keeps everything in memory.
 *
 *     node server.mjs [--port 0] [--base /akin] [--images 240]
 */
import { createServer } from 'node:http';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { collection, combine, fields, matcher, publicItem, rank, vectorOf } from './data.mjs';
import { THEMES, picture, random } from './pictures.mjs';
import { readForm, readAll } from './form.mjs';
import { work } from './work.mjs';

const UI = fileURLToPath(new URL('../../../web/ui/', import.meta.url));
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml' };
const CSP = "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'";

export class Fault extends Error {
  constructor(status, code, title, detail = '', remedy = '', headers = {}) { super(title); Object.assign(this, { status, code, title, detail, remedy, headers }); }
}

/** Starts the mock; answers `{url, close, state}`. */
export async function startMock({ port = 0, base = '', images = 240 } = {}) {
  const state = {
    base, role: 'admin', key: '', model: { name: 'akin-ti14', dim: 24 }, device: 'cpu', delays: {}, faults: {}, log: [], tokens: new Map(),
    collections: new Map([['photos', collection('photos', images)], ['testset', collection('testset', 30)]]),
    limits: { max_upload_bytes: 20_000_000, max_pixels: 100_000_000, max_k: 1000 }, jobs: new Map(), reports: new Map(), runs: new Map(), extra: {},
  };
  const server = createServer((request, response) => { serve(state, request, response).catch((error) => answerFault(response, error)); });
  await new Promise((done) => { server.listen(port, '127.0.0.1', done); });
  server.keepAliveTimeout = 500;
  return { url: `http://127.0.0.1:${server.address().port}${base}/`, state, close: () => { server.closeAllConnections(); return new Promise((done) => { server.close(done); }); } };
}

function answerFault(response, error) {
  if (response.headersSent) { response.destroy(); return; }
  const fault = error instanceof Fault ? error : new Fault(500, 'internal', 'Something went wrong', String(error?.stack ?? error));
  json(response, { type: 'about:blank', title: fault.title, status: fault.status, code: fault.code, detail: fault.detail, remedy: fault.remedy, request_id: 'mock-1' }, fault.status, { 'content-type': 'application/problem+json', ...fault.headers });
}

export function json(response, body, status = 200, headers = {}) {
  response.writeHead(status, { 'content-type': 'application/json', 'x-request-id': 'mock-1', 'cache-control': 'no-store', ...headers });
  response.end(JSON.stringify(body));
}

const pause = (ms) => new Promise((done) => { setTimeout(done, ms); });

async function serve(state, request, response) {
  const url = new URL(request.url, 'http://x');
  if (!url.pathname.startsWith(`${state.base}/`)) throw new Fault(404, 'not_found', 'Nothing here');
  const path = url.pathname.slice(state.base.length);
  if (path === '/mock') {
    const body = JSON.parse((await readAll(request)).toString() || '{}');
    if (body.images) state.collections.set('photos', collection('photos', body.images));
    if (body.forget) state.tokens.clear();
    for (const name of ['delays', 'faults', 'role', 'key', 'model', 'device', 'extra', 'limits', 'flat']) if (name in body) state[name] = body[name];
    if (body.servable !== undefined) state.collections.get('photos').servable = body.servable;
    if (body.index) work.index(state, body.index);
    json(response, { log: state.log.splice(0) });
    return;
  }
  if (path === '/livez' || path === '/readyz') { response.end('ok\n'); return; }
  if (path === '/' || path.startsWith('/ui/')) { await page(path, response); return; }
  if (!path.startsWith('/api/v1/')) throw new Fault(404, 'not_found', 'Nothing here', path);
  await api(state, request, response, path.slice(7), url.searchParams);
}

async function page(path, response) {
  const name = normalize(path === '/' ? 'index.html' : path.slice(4));
  if (name.startsWith('..')) throw new Fault(404, 'not_found', 'Nothing here');
  let data;
  try { data = await readFile(join(UI, name)); } catch { throw new Fault(404, 'not_found', 'Nothing here', path); }
  response.writeHead(200, { 'content-type': TYPES[extname(name)] ?? 'application/octet-stream', 'content-security-policy': CSP, 'x-content-type-options': 'nosniff', 'cache-control': 'no-cache' });
  response.end(data);
}

async function api(state, request, response, path, params) {
  const parts = path.split('/').filter(Boolean).map(decodeURIComponent);
  const what = parts[0] === 'collections' ? (parts[2] ?? 'collections') : parts[0];
  if (what !== 'images' || !parts[4]) state.log.push({ method: request.method, path, what });
  if (state.key && request.headers.authorization !== `Bearer ${state.key}`) throw new Fault(401, 'missing_key', 'A key is needed', 'This server answers only with a key.', 'Make one with akin key create.');
  if (state.delays[what]) await pause(state.delays[what]);
  const fault = state.faults[what];
  if (fault && fault.times !== 0) {
    if (fault.times) fault.times -= 1;
    await readAll(request);
    throw new Fault(fault.status, fault.code, fault.title ?? fault.code, fault.detail ?? '', fault.remedy ?? '', fault.headers ?? {});
  }
  if (parts[0] === 'status') { json(response, statusOf(state)); return; }
  if (parts[0] === 'collections') { await collections(state, request, response, parts, params); return; }
  const handled = await work.serve(state, request, response, parts, params);
  if (!handled) throw new Fault(404, 'not_found', 'Nothing here', path);
}

const short = (c) => ({ name: c.name, images: c.items.length, failed: c.failed, dim: c.dim, model: c.model, sequence: c.sequence, servable: c.servable, bytes: c.items.length * 9000 });

function statusOf(state) {
  return {
    version: '0.0.0-mock', model: state.model, device: state.device, limits: state.limits, role: state.role, queue_depth: 0, ...state.extra,
    collections: [...state.collections.values()].map(short), indexing: [...state.jobs.values()].filter((j) => j.kind === 'index' && j.state === 'running').map((j) => j.id),
  };
}

async function collections(state, request, response, [, name, what, id, leaf], params) {
  if (!name) {
    if (request.method === 'POST') {
      const body = JSON.parse((await readAll(request)).toString());
      if (state.collections.has(body.name)) throw new Fault(409, 'collection_exists', 'There is a collection of that name');
      state.collections.set(body.name, collection(body.name, 0));
      json(response, short(state.collections.get(body.name)), 201);
      return;
    }
    json(response, { collections: [...state.collections.values()].map(short) });
    return;
  }
  const c = state.collections.get(name);
  if (!c) throw new Fault(404, 'collection_not_found', `There is no collection “${name}”`);
  const base = `${state.base}/api/v1/collections/${name}`;
  if (!what) json(response, { ...short(c), payload_fields: c.items.length ? fields(c) : [] });
  else if (what === 'search') await search(state, request, response, c);
  else if (what === 'count') json(response, await countOf(state, request, c));
  else if (what === 'images' && id && request.method === 'DELETE') {
    c.items = c.items.filter((item) => item.id !== Number(id));
    c.sequence += 1;
    response.writeHead(204);
    response.end();
  } else if (what === 'images' && id) oneImage(c, response, state, id, leaf, params, base);
  else if (what === 'images' && request.method === 'POST') await add(state, request, response, c, base);
  else if (what === 'images') {
    const all = filtered(c, params.get('filter'));
    const from = Number(params.get('cursor') ?? 0);
    const limit = Number(params.get('limit') ?? 100);
    json(response, { images: all.slice(from, from + limit).map((item) => publicItem(item, base)), next_cursor: from + limit < all.length ? String(from + limit) : null });
  } else if (!(await work.collection(state, request, response, c, [what, id, leaf], params, base))) throw new Fault(404, 'not_found', 'Nothing here');
}

function filtered(c, filter) {
  try { return c.items.filter(matcher(filter)); } catch (error) { throw new Fault(400, 'invalid_filter', 'The filter is not right', error.message, 'Compare a field with a value, for example label = "dog".'); }
}

function oneImage(c, response, state, id, leaf, params, base) {
  const item = c.items[Number(id) - 1]?.id === Number(id) ? c.items[Number(id) - 1] : c.items.find((each) => each.id === Number(id));
  if (!item) throw new Fault(404, 'image_not_found', `There is no picture ${id}`);
  if (!leaf) { json(response, publicItem(item, base)); return; }
  const size = leaf === 'thumbnail' ? Number(params.get('size') ?? 320) : 900;
  if (leaf === 'original' && item.id % 7 === 0) throw new Fault(410, 'gone', 'The file is gone');
  response.writeHead(200, { 'content-type': 'image/png', 'cache-control': 'private, max-age=3600', etag: `"${item.sha256}-${size}"` });
  // Of ten thousand pictures a few are enough: drawing them is not what is measured.
  response.end(picture(state.flat ? c.items[item.id % 24] : item, state.flat ? 160 : size));
}

/** The vector of an example; a crop pulls it towards another theme, so that results change. */
function vectorOfExample(state, c, example) {
  let v;
  if (example.id !== undefined) {
    const item = c.items.find((each) => each.id === example.id);
    if (!item) throw new Fault(404, 'image_not_found', `There is no picture ${example.id}`);
    v = item.vector;
  } else if (example.query !== undefined) {
    v = state.tokens.get(example.query);
    if (!v) throw new Fault(410, 'query_expired', 'The uploaded picture is no longer kept', 'Uploaded pictures are kept for ten minutes.', 'Upload it again.');
  } else if (example.url !== undefined) {
    if (/127\.0\.0\.1|localhost|169\.254/.test(example.url)) throw new Fault(403, 'address_refused', 'That address is not allowed', 'It leads into a private network.', 'Save the picture and drop it here.');
    if (/missing/.test(example.url)) throw new Fault(502, 'remote_failed', 'The address gave no picture', 'It answered 404.', 'Check the address.');
    v = seeded(Buffer.from(example.url));
  } else throw new Fault(400, 'bad_request', 'An example says nothing');
  if (!example.crop) return v;
  const { x, y, width, height } = example.crop;
  if (!(width > 0 && height > 0 && x >= 0 && y >= 0)) throw new Fault(400, 'invalid_crop', 'That part is not in the picture');
  const other = vectorOf(THEMES[Math.floor((x + width / 2) * 2.99) + 3], 4242);
  return combine([v, other, other].slice(0, width * height > 0.8 ? 1 : 3), []);
}

const seeded = (data) => { const n = createHash('sha256').update(data).digest().readUInt32LE(0); return vectorOf(THEMES[n % THEMES.length], n % 100000, 0.25); };

async function requestOf(state, request) {
  const data = await readAll(request);
  if (data.length > state.limits.max_upload_bytes) throw new Fault(413, 'body_too_large', 'The request is too large', `At most ${state.limits.max_upload_bytes} bytes.`, 'Send a smaller picture.');
  if (!(request.headers['content-type'] ?? '').startsWith('multipart/')) return { body: JSON.parse(data.toString() || '{}'), files: [] };
  const form = readForm(data, request.headers['content-type']);
  const files = form.filter((part) => part.name === 'image');
  for (const file of files) if (!isPicture(file.data)) throw new Fault(400, 'not_an_image', 'That is not a picture', 'Its first bytes are of no format known.', 'JPEG, PNG, WebP, GIF, TIFF and others can be read.');
  return { body: JSON.parse(form.find((part) => part.name === 'request')?.data.toString() ?? '{}'), files, form };
}

const isPicture = (data) => data.subarray(1, 4).toString('latin1') === 'PNG' || data[0] === 0xff || data.subarray(0, 4).toString('latin1') === 'RIFF' || data.subarray(0, 3).toString('latin1') === 'GIF';

async function search(state, request, response, c) {
  const { body, files } = await requestOf(state, request);
  let token;
  const positive = [...(body.positive ?? []), ...(body.id !== undefined ? [{ id: body.id, crop: body.crop }] : []), ...(body.url ? [{ url: body.url, crop: body.crop }] : [])].map((e) => vectorOfExample(state, c, e));
  for (const file of files) {
    const v = seeded(file.data);
    token = `q${createHash('sha256').update(file.data).digest('hex').slice(0, 20)}${Math.floor(random(state.tokens.size + Date.now())() * 1e6)}`;
    state.tokens.set(token, v);
    positive.push(v);
  }
  const negative = (body.negative ?? []).map((e) => vectorOfExample(state, c, e));
  if (!positive.length && !negative.length) throw new Fault(400, 'bad_request', 'Nothing to search with');
  filtered(c, body.filter);
  const many = positive.length + negative.length > 1;
  const exclude = new Set(many ? [...(body.positive ?? []), ...(body.negative ?? [])].map((e) => e.id).filter((i) => i !== undefined) : []);
  const asked = JSON.stringify([c.name, c.sequence, c.items.length, { ...body, k: 0, cursor: 0 }, positive, negative]);
  if (state.ranked?.asked !== asked) state.ranked = { asked, hits: rank(c, combine(positive.length ? positive : [vectorOf('beach', 1)], negative), { ...body, exclude }) };
  const { hits } = state.ranked;
  const from = Number(body.cursor ?? body.offset ?? 0);
  const k = body.k ?? 24;
  json(response, { collection: c.name, model: c.model, took_ms: 3, exact: true, hits: hits.slice(from, from + k), next_cursor: from + k < hits.length ? String(from + k) : null, ...(token ? { query: token } : {}) });
}

async function countOf(state, request, c) {
  const { body } = await requestOf(state, request);
  const all = filtered(c, body.filter);
  const examples = (body.positive ?? []).map((e) => vectorOfExample(state, c, e));
  if (!examples.length || body.min_similarity === undefined) return { count: all.length, exact: true };
  return { count: rank(c, combine(examples, []), { filter: body.filter, min_similarity: body.min_similarity }).length, exact: true };
}

async function add(state, request, response, c, base) {
  const { files } = await requestOf(state, request);
  if (!files.length) throw new Fault(400, 'bad_request', 'There is no picture in it');
  const n = c.items.length;
  const seed = 5000 + n;
  const item = { ...collection('x', 1).items[0], id: n + 1, seed, path: `/uploads/${files[0].filename}`, vector: seeded(files[0].data) };
  c.items.push(item);
  c.sequence += 1;
  json(response, publicItem(item, base), 201);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const flag = (name, other) => { const at = process.argv.indexOf(`--${name}`); return at > 0 ? process.argv[at + 1] : other; };
  const mock = await startMock({ port: Number(flag('port', 7878)), base: flag('base', ''), images: Number(flag('images', 240)) });
  console.log(mock.url);
}
