/** The mock's long work: jobs, duplicates, data sets. */
import { json, Fault } from './server.mjs';
import { publicItem } from './data.mjs';
import { readAll } from './form.mjs';

const TICK = 60;
let counter = 0;

/** A job that counts to `total` and then gives a result. */
function job(state, kind, collection, total, { result = () => ({}), failed = [], step = null, message = '' } = {}) {
  const made = {
    id: `job${++counter}`, kind, state: 'running', collection, created: new Date().toISOString(), started: new Date().toISOString(), ended: null,
    progress: { done: 0, total, rate: null, eta_s: null, message }, failed_items: [], failed_count: 0, result: null, problem: null,
  };
  state.jobs.set(made.id, made);
  const by = step ?? Math.max(1, Math.ceil(total / 8));
  const timer = setInterval(() => {
    if (made.state !== 'running') { clearInterval(timer); return; }
    made.progress.done = Math.min(total, made.progress.done + by);
    made.progress.rate = (by * 1000) / TICK;
    made.progress.eta_s = (total - made.progress.done) / made.progress.rate;
    made.failed_items = failed.filter((_, i) => made.progress.done >= (total * (i + 1)) / (failed.length + 1));
    made.failed_count = made.failed_items.length;
    if (made.progress.done >= total) {
      made.state = 'done';
      made.ended = new Date().toISOString();
      made.result = result();
      clearInterval(timer);
    }
  }, TICK);
  timer.unref?.();
  return made;
}

function events(state, request, response, made) {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  const over = () => ['done', 'failed', 'cancelled'].includes(made.state);
  const tell = () => {
    response.write(`event: ${over() ? 'end' : 'progress'}\ndata: ${JSON.stringify(made)}\n\n`);
    if (over()) { clearInterval(timer); response.end(); }
  };
  const timer = setInterval(tell, TICK);
  request.on('close', () => clearInterval(timer));
  response.write(': hello\n\n');
  tell();
}

const bodyOf = async (request) => JSON.parse((await readAll(request)).toString() || '{}');

/** Groups of a collection's copies; some of other kinds, for the review's tabs. */
function report(c, base) {
  const groups = [];
  // Numbered from 0, as the server numbers them.
  for (const item of c.items.filter((each) => each.copyOf)) {
    const of = c.items.find((each) => each.id === item.copyOf);
    const kind = groups.length % 5 === 3 ? 'same_file' : groups.length % 5 === 4 ? 'same_subject' : 'edited';
    const members = [of, item].map((each, i) => ({ ...publicItem(each, base), similarity: i ? 0.9871 : 1, kind, to: of.id }));
    if (groups.length === 0) { const third = c.items.find((each) => each.theme === of.theme && each.id !== of.id && !each.copyOf); members.push({ ...publicItem(third, base), similarity: 0.931, kind, to: of.id }); }
    groups.push({ id: groups.length, remove: [], kind, keep: of.id, members, decided: 'pending' });
  }
  return groups;
}

function totals(groups) {
  const tally = (of) => groups.reduce((by, g) => ({ ...by, [g.kind]: (by[g.kind] ?? 0) + of(g) }), {});
  const going = groups.filter((g) => g.decided === 'kept').flatMap((g) => g.members.filter((m) => g.remove.includes(m.id)));
  const pending = (g) => Number(g.decided === 'pending');
  return {
    groups: groups.length, images: groups.reduce((n, g) => n + g.members.length, 0), by_kind: tally(() => 1), pending: groups.filter(pending).length, pending_by_kind: tally(pending),
    going: going.length, going_bytes: going.reduce((n, m) => n + (m.bytes ?? 0), 0),
  };
}

function run(state, name, pool, seeds) {
  const c = state.collections.get(pool);
  const seedIds = seeds.length ? seeds : [1];
  const images = c.items.map((item) => {
    const near = c.items.find((each) => each.id === seedIds[item.id % seedIds.length]);
    if (item.copyOf) return { ...item, kept: false, step: '01-self-dedup', rule: 'near-duplicate', because: { set: 'pool', id: item.copyOf, path: c.items.find((e) => e.id === item.copyOf).path }, reason: `It is a copy of ${c.items.find((e) => e.id === item.copyOf).path}.`, similarity: 0.987 };
    if (item.id % 11 === 5) return { ...item, kept: false, step: '02-relative-dedup', rule: 'leak', reason: 'It is like a picture of “testset”, which must stay out.', similarity: 0.81 };
    if (item.theme === near.theme) return { ...item, kept: true, step: '03-retrieve', rule: 'neighbour', reason: `It is among the nearest of ${near.path}.`, seed: { set: pool, id: near.id, path: near.path }, rank: item.id % 7, similarity: 0.9 - (item.id % 30) / 100 };
    return { ...item, kept: false, step: '03-retrieve', rule: 'not-retrieved', because: { set: pool, id: near.id, path: near.path }, reason: 'No example was near enough.', similarity: 0.42 };
  });
  const by = (step, rule) => images.filter((i) => i.step === step && i.rule === rule && !i.kept).length;
  const n = images.length;
  const [d, x, r] = [by('01-self-dedup', 'near-duplicate'), by('02-relative-dedup', 'leak'), by('03-retrieve', 'not-retrieved')];
  return {
    name, pool, seeds: ['examples'], state: 'done', created: new Date().toISOString(), images, journal: [],
    accounting: [
      { step: '01-self-dedup', images_in: n, images_out: n - d, rules: { 'near-duplicate': d } },
      { step: '02-relative-dedup', images_in: n - d, images_out: n - d - x, rules: { leak: x } },
      { step: '03-retrieve', images_in: n - d - x, images_out: n - d - x - r, rules: { 'not-retrieved': r } },
    ],
  };
}

const publicRun = ({ images, journal, ...rest }) => rest;

function review(r) {
  const now = new Map();
  for (const { action, ids } of r.journal) for (const id of ids) now.set(id, action);
  const count = (action) => [...now.values()].filter((each) => each === action).length;
  return { now, answer: { accepted: count('accept'), rejected: count('reject'), undone: 0, can_undo: r.journal.length > 0 } };
}

export const work = {
  index: (state, total) => job(state, 'index', 'photos', total, { step: Math.max(1, Math.ceil(total / 800)), failed: [{ path: '/pictures/broken.jpg', reason: 'The file ends too early.' }, { path: '/pictures/notes.heic', reason: 'HEIC needs a build with libheif.' }] }),

  /** Addresses below a collection. */
  async collection(state, request, response, c, [what, id, leaf], params, base) {
    if (what === 'index') { json(response, job(state, 'index', c.name, 400, { failed: [{ path: '/pictures/broken.jpg', reason: 'The file ends too early.' }] }), 202); return true; }
    if (what === 'stats') { json(response, { name: c.name, images: c.items.length, rows: c.items.length + (c.dead ?? 0), dead_rows: c.dead ?? 0, bytes: { vectors: 800 * (c.items.length + (c.dead ?? 0)) } }); return true; }
    if (what === 'compact') {
      json(response, job(state, 'compact', c.name, c.items.length, { message: 'copying images', result: () => { const dead = c.dead ?? 0; c.dead = 0; return { rewritten: dead > 0, images: c.items.length, dead_rows: dead, bytes_before: 800 * (c.items.length + dead), bytes_after: 800 * c.items.length }; } }), 202);
      return true;
    }
    if (what !== 'dedup') return false;
    if (!id) {
      const name = `r${state.reports.size + 1}`;
      json(response, job(state, 'dedup', c.name, c.items.length, { message: 'comparing', result: () => { state.reports.set(name, report(c, base)); return { report: name, groups: state.reports.get(name).length }; } }), 202);
      return true;
    }
    const groups = state.reports.get(id);
    if (!groups) throw new Fault(404, 'not_found', 'There is no such look');
    if (leaf === 'decisions') {
      const body = await bodyOf(request);
      const group = groups.find((g) => g.id === body.group);
      group.decided = { keep: 'kept', not_duplicate: 'not_duplicate', undo: 'pending' }[body.action];
      group.remove = body.action === 'keep' ? body.remove : [];
      json(response, { group: group.id, decided: group.decided });
    } else if (leaf === 'apply') {
      const ids = groups.filter((g) => g.decided === 'kept').flatMap((g) => g.remove);
      const bytes = ids.reduce((n, i) => n + c.items.find((each) => each.id === i).bytes, 0);
      if ((await bodyOf(request)).dry_run) json(response, { would_remove: ids, bytes });
      else {
        c.items = c.items.filter((item) => !ids.includes(item.id));
        c.sequence += 1;
        c.dead = (c.dead ?? 0) + ids.length;
        for (const g of groups) if (g.decided === 'kept') g.decided = 'removed';
        json(response, { removed: ids.length, bytes });
      }
    } else {
      const kinds = (params.get('kind') ?? '').split(',').filter(Boolean);
      const limit = Math.min(Number(params.get('limit') ?? 50), state.extra.page ?? 200);
      const rest = groups.filter((g) => g.id >= Number(params.get('cursor') ?? 0) && (!kinds.length || kinds.includes(g.kind)));
      json(response, { groups: rest.slice(0, limit), next_cursor: rest.length > limit ? String(rest[limit].id) : null, totals: totals(groups) });
    }
    return true;
  },

  /** Jobs and runs. */
  async serve(state, request, response, parts, params) {
    if (parts[0] === 'jobs') {
      const made = state.jobs.get(parts[1]);
      if (!parts[1]) json(response, { jobs: [...state.jobs.values()] });
      else if (!made) throw new Fault(404, 'not_found', 'There is no such job');
      else if (parts[2] === 'events') events(state, request, response, made);
      else if (request.method === 'DELETE') { made.state = 'cancelled'; made.ended = new Date().toISOString(); response.writeHead(204); response.end(); } else json(response, made);
      return true;
    }
    if (parts[0] !== 'runs') return false;
    if (!parts[1]) {
      if (request.method !== 'POST') { json(response, { runs: [...state.runs.values()].map(publicRun) }); return true; }
      const body = await bodyOf(request);
      if (state.runs.has(body.name)) throw new Fault(409, 'conflict', `There is a data set “${body.name}”`, 'Names are used once.', 'Take another name.');
      json(response, job(state, 'curate', body.pool, 300, { result: () => { state.runs.set(body.name, run(state, body.name, body.pool, body.seed.ids ?? [])); return { run: body.name }; } }), 202);
      return true;
    }
    const r = state.runs.get(parts[1]);
    if (!r) throw new Fault(404, 'not_found', `There is no data set “${parts[1]}”`);
    if (!parts[2]) json(response, publicRun(r));
    else if (parts[2] === 'images' && parts[4] === 'explain') { const i = r.images.find((e) => e.id === Number(parts[3])); json(response, { sentences: [i.reason, `Decided at the step “${i.step}”.`] }); } else if (parts[2] === 'images') {
      const { now } = review(r);
      const all = r.images.filter((i) => String(i.kept) === params.get('kept') && (!params.get('rule') || i.rule === params.get('rule')));
      const from = Number(params.get('cursor') ?? 0);
      const limit = Number(params.get('limit') ?? 100);
      json(response, { images: all.slice(from, from + limit).map(({ vector, ...i }) => ({ ...i, decision: { accept: 'accepted', reject: 'rejected' }[now.get(i.id)] })), next_cursor: from + limit < all.length ? String(from + limit) : null, total: all.length });
    } else if (parts[2] === 'review') {
      if (request.method === 'POST') {
        const body = await bodyOf(request);
        if (body.action === 'undo' && body.ids?.length) throw new Fault(400, 'bad_request', 'undo takes no ids');
        if (body.action === 'undo') r.journal.pop();
        else r.journal.push(body);
      }
      json(response, review(r).answer);
    } else if (parts[2] === 'export') {
      const body = await bodyOf(request);
      const kept = r.images.filter((i) => i.kept).length;
      json(response, job(state, 'export', r.pool, kept, { result: () => ({ folder: `/home/me/.akin/exports/${r.name}-${body.format}`, images: kept, certificate: { excluded_sets: ['testset'], most_similar_to_an_excluded_image: 0.6871, pairs_checked: kept * 30, model: 'akin-ti14' } }) }), 202);
    } else return false;
    return true;
  },
};
