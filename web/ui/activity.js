/** The page of long work: progress, what failed, results; and adding pictures. */
import { ended, post, postForm, within } from './api.js';
import { button, fill, h, toast } from './dom.js';
import { createSpace } from './space.js';
import { state as drawnState } from './states.js';
import { blank, format } from './url.js';
import { looksLikePicture } from './uploads.js';
import { bytes, count, duration, jobKind, jobState, moment, some, wordsOf } from './words.js';

/** What the first collection is called. */
const FIRST = 'default';

/** The collection in use; where there is none yet, a new one. */
async function ready(app) {
  if (app.collection()) return app.collection();
  await post('/collections', { name: FIRST });
  await app.refresh();
  return FIRST;
}

/** @param {any} app */
export function createActivityPage(app) {
  const list = h('div', { class: 'jobs' });
  const adding = h('section', { class: 'card add-pictures', 'aria-labelledby': 'add-title' });
  const space = createSpace(app);
  const page = h('div', { class: 'page' }, h('div', { class: 'page-head' }, h('h1', null, 'Activity'), h('p', { class: 'muted' }, 'What Akin is working on, and what it has done.')), adding, space.element, list);
  /** @type {Map<string, {element: HTMLElement, draw: (job: any) => void}>} */
  const cards = new Map();
  app.jobs.watch(() => { if (page.isConnected) draw(); });

  function draw() {
    const jobs = app.jobs.list();
    if (!jobs.length) { cards.clear(); fill(list, drawnState({ icon: 'clock', title: 'Nothing has been done yet', text: 'Reading pictures, looking for duplicates and building data sets show up here.' })); return; }
    for (const id of [...cards.keys()]) if (!jobs.some((job) => job.id === id)) cards.delete(id);
    const elements = jobs.map((job) => {
      if (!cards.has(job.id)) cards.set(job.id, jobCard(app));
      const card = cards.get(job.id);
      card.draw(job);
      return card.element;
    });
    if (list.children.length !== elements.length || elements.some((element, i) => list.children[i] !== element)) list.replaceChildren(...elements);
  }

  function drawAdding() {
    adding.hidden = !app.canWrite();
    const name = app.collection() || FIRST;
    if (adding.hidden || adding.dataset.for === name) return;
    adding.dataset.for = name;
    const file = h('input', { type: 'file', accept: 'image/*', multiple: true, class: 'unseen', tabIndex: -1, 'aria-label': 'Pictures to add', onchange: () => { addFiles(app, [...file.files]); file.value = ''; } });
    const source = h('input', { type: 'text', class: 'input', placeholder: '/home/me/Pictures', 'aria-label': 'A folder on the machine Akin runs on', spellcheck: false });
    const place = h('div', { class: 'drop-area', dataset: { drop: 'set' } }, h('p', null, 'Drop pictures here, or'),
      button({ icon: 'upload', label: 'Choose pictures', class: 'primary', onclick: () => file.click() }), file);
    place.addEventListener('drop', (event) => addFiles(app, [...event.dataTransfer.files].filter(looksLikePicture)));
    fill(adding, h('h2', { id: 'add-title' }, `Add pictures to “${name}”`), h('div', { class: 'add-ways' }, place,
      h('form', {
        class: 'folder-form',
        onsubmit: async (event) => {
          event.preventDefault();
          if (!source.value.trim()) return;
          try {
            const job = await post(within(await ready(app), '/index'), { sources: [source.value.trim()] });
            source.value = '';
            app.jobs.start(job);
          } catch (problem) { toast(wordsOf(problem), { kind: 'error' }); }
        },
      }, h('label', { class: 'field' }, 'Or a folder of the machine Akin runs on', source), h('button', { type: 'submit', class: 'button' }, h('span', null, 'Read it')),
      h('p', { class: 'muted small-text' }, 'Only folders that were allowed when Akin was started.'))));
  }

  return {
    element: page,
    show() { drawAdding(); space.draw(); draw(); },
    reload() { app.jobs.check(app.status, true); draw(); },
  };
}

/** One job as a card that is drawn again in place. */
export function jobCard(app) {
  const title = h('h3');
  const badge = h('span', { class: 'state-badge' });
  const text = h('p', { class: 'muted' });
  const bar = h('div', { class: 'bar-fill' });
  const track = h('div', { class: 'bar-track', role: 'progressbar', 'aria-valuemin': 0, 'aria-valuemax': 100 }, bar);
  const cancel = button({ label: 'Stop', class: 'small' });
  const failedList = h('ul');
  const failedTitle = h('summary');
  const failed = h('details', { class: 'failed', hidden: true }, failedTitle, failedList);
  const result = h('div', { class: 'job-result' });
  const element = h('article', { class: 'card job' }, h('div', { class: 'job-head' }, title, badge, cancel), track, text, failed, result);
  return {
    element,
    draw(job) {
      const { done = 0, total = null, rate = null, eta_s: eta = null, message = '' } = job.progress ?? {};
      title.textContent = `${jobKind(job.kind)}${job.collection ? ` · ${job.collection}` : ''}`;
      badge.textContent = jobState(job.state);
      element.dataset.state = job.state;
      track.hidden = ended(job);
      track.setAttribute('aria-label', jobKind(job.kind));
      const share = total ? Math.min(100, (100 * done) / total) : null;
      track.classList.toggle('unknown', share === null);
      bar.style.width = share === null ? '' : `${share}%`;
      if (share === null) track.removeAttribute('aria-valuenow');
      else track.setAttribute('aria-valuenow', String(Math.round(share)));
      const n = job.failed_count ?? job.failed_items?.length ?? 0;
      text.textContent = [
        total !== null ? `${count(done)} of ${count(total)}` : done ? count(done) : '',
        !ended(job) && rate && done >= 20 ? `${rate >= 10 ? Math.round(rate) : rate.toFixed(1)} a second` : '',
        !ended(job) && done >= 20 && eta !== null && eta !== undefined ? `about ${duration(eta)} left` : '',
        message, n ? `${count(n)} could not be read` : '', ended(job) ? moment(job.ended) : '',
      ].filter(Boolean).join(' · ');
      cancel.hidden = ended(job) || !app.canWrite();
      cancel.onclick = () => (job.stop ? job.stop() : app.jobs.cancel(job));
      failed.hidden = n === 0;
      failedTitle.textContent = `${some(n, 'file')} could not be read`;
      if (failed.dataset.n !== String(n)) {
        failed.dataset.n = String(n);
        fill(failedList, (job.failed_items ?? []).map(({ path, reason }) => h('li', null, h('span', { class: 'mono' }, path), h('span', { class: 'muted' }, reason))),
          n > (job.failed_items?.length ?? 0) && h('li', { class: 'muted' }, `and ${count(n - (job.failed_items?.length ?? 0))} more`));
      }
      fill(result, outcome(job, app));
    },
  };
}

/** What came of a job, with the way to it. */
function outcome(job, app) {
  if (job.state === 'failed' && job.problem) return h('p', { class: 'error-text' }, wordsOf(job.problem));
  if (job.state !== 'done' || !job.result) return null;
  const link = (patch, words) => h('a', { class: 'button small', href: format({ ...blank(), collection: job.collection ?? app.collection(), ...patch }) }, h('span', null, words));
  if (job.kind === 'dedup' && job.result.report !== undefined) return link({ page: 'duplicates', sub: String(job.result.report) }, 'Review duplicates');
  if (job.kind === 'curate' && (job.result.run ?? job.result.name)) return link({ page: 'sets', sub: String(job.result.run ?? job.result.name) }, 'Open the data set');
  if (job.kind === 'compact') return h('p', null, job.result.rewritten ? `${bytes(Math.max(0, job.result.bytes_before - job.result.bytes_after))} given back.` : 'There was nothing to give back.');
  if (job.kind === 'export') return h('p', null, `${some(job.result.images ?? 0, 'picture')} in `, h('code', null, job.result.folder ?? ''));
  return null;
}

/** Uploads pictures into the collection, one after another, as an entry of the list. */
export async function addFiles(app, files, into = '') {
  if (!files.length) return [];
  let collection = into;
  try { collection ||= await ready(app); } catch (problem) { toast(wordsOf(problem), { kind: 'error' }); return []; }
  const stop = new AbortController();
  const started = Date.now();
  const job = {
    id: `upload-${started}`, kind: 'index', state: 'running', collection, failed_items: [], failed_count: 0,
    progress: { done: 0, total: files.length, rate: null, eta_s: null, message: bytes(files.reduce((sum, file) => sum + file.size, 0)) }, stop: () => stop.abort(),
  };
  const added = [];
  app.jobs.put(job);
  for (const file of files) {
    if (stop.signal.aborted) break;
    const form = new FormData();
    form.append('image', file, file.name || 'picture');
    form.append('name', file.name || 'picture');
    try {
      added.push(await postForm(within(collection, '/images'), form, stop.signal, { 'idempotency-key': `${started}-${job.progress.done}-${file.size}` }));
    } catch (problem) {
      if (problem?.name === 'AbortError') break;
      job.failed_items.push({ path: file.name, reason: problem.message });
      job.failed_count += 1;
      if (problem.status === 429) await new Promise((done) => { setTimeout(done, 1000 * (problem.retryAfter ?? 2)); });
      if ([401, 403].includes(problem.status) || problem.code === 'unreachable') { job.problem = { detail: problem.message, remedy: problem.remedy }; break; }
    }
    job.progress.done += 1;
    const seconds = (Date.now() - started) / 1000;
    job.progress.rate = job.progress.done / Math.max(seconds, 0.1);
    job.progress.eta_s = (files.length - job.progress.done) / job.progress.rate;
    app.jobs.put({ ...job });
  }
  app.jobs.put({ ...job, state: job.problem ? 'failed' : stop.signal.aborted ? 'cancelled' : 'done', ended: new Date().toISOString() });
  app.refresh().catch(() => {});
  return added;
}
