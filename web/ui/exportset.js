/** Writing a data set out, and what the certificate says about it. */
import { ended, post } from './api.js';
import { jobCard } from './activity.js';
import { button, dialog, fill, h } from './dom.js';
import { problemState } from './states.js';
import { plain, some } from './words.js';

const FORMATS = { imagefolder: 'Folder of pictures', parquet: 'Parquet table', csv: 'CSV table', jsonl: 'JSON lines', webdataset: 'WebDataset (tar)', coco: 'COCO' };
const FILES = { '': 'As usual for the format', copy: 'Copied', hardlink: 'Hard links (no extra room)', symlink: 'Links', none: 'Left where they are' };

/** @param {any} app @param {string} run */
export function exportSet(app, run) {
  const format = h('select', { class: 'select', id: 'export-format' }, Object.entries(FORMATS).map(([value, words]) => h('option', { value }, words)));
  const files = h('select', { class: 'select', id: 'export-files' }, Object.entries(FILES).map(([value, words]) => h('option', { value }, words)));
  const outcome = h('div');
  const start = h('button', { type: 'submit', class: 'button primary' }, h('span', null, 'Export'));
  let stop = () => {};
  const form = h('form', {
    onsubmit: async (event) => {
      event.preventDefault();
      start.disabled = true;
      fill(outcome);
      try {
        const job = await post(`/runs/${encodeURIComponent(run)}/export`, { format: format.value, ...(files.value ? { files: files.value } : {}) });
        const card = jobCard(app);
        card.draw(job);
        fill(outcome, card.element);
        stop = app.jobs.watch((now) => { if (now.id === job.id) card.draw(now); });
        const last = await app.jobs.start(job);
        stop();
        if (last && ended(last)) {
          card.draw(last);
          if (last.state === 'done') fill(outcome, done(last.result ?? {}));
        }
      } catch (problem) {
        fill(outcome, problemState(problem));
      }
      start.disabled = false;
    },
  },
  h('div', { class: 'form-row' }, h('label', { class: 'field', for: 'export-format' }, 'Format', format), h('label', { class: 'field', for: 'export-files' }, 'Pictures', files)),
  h('div', { class: 'form-foot' }, start), outcome);
  dialog({ title: `Export “${run}”`, class: 'wide', body: form, onclose: () => stop() });
  format.focus();
}

/** Where it is, and the certificate in words. */
function done(result) {
  const folder = result.folder ?? '';
  return h('section', { class: 'export-done', role: 'status' }, h('h3', null, `${some(result.images ?? 0, 'picture')} exported`),
    h('p', null, 'To ', h('code', null, folder), ' ', button({ label: 'Copy path', class: 'small', onclick: () => navigator.clipboard?.writeText(folder).catch(() => {}) })),
    result.skipped > 0 && h('p', null, `${some(result.skipped, 'file')} had changed or gone and ${result.skipped === 1 ? 'was' : 'were'} left out.`),
    result.certificate && h('div', { class: 'certificate' }, h('h4', null, 'Certificate'), certificate(result.certificate)));
}

/** Facts of a certificate; what is nested is shown by its parts. */
function certificate(facts, prefix = '') {
  const rows = [];
  const walk = (value, name) => {
    if (value === null || value === undefined) return;
    if (Array.isArray(value)) {
      if (value.every((each) => typeof each !== 'object')) { if (value.length) rows.push([name, value.slice(0, 6).join(', ')]); } else rows.push([name, some(value.length, 'entry', 'entries')]);
    } else if (typeof value === 'object') for (const [key, inner] of Object.entries(value)) walk(inner, name ? `${name}: ${plain(key).toLowerCase()}` : plain(key));
    else rows.push([name, typeof value === 'number' && !Number.isInteger(value) ? value.toFixed(4) : typeof value === 'boolean' ? (value ? 'yes' : 'no') : String(value)]);
  };
  walk(facts, prefix);
  return h('dl', { class: 'facts' }, rows.map(([name, value]) => [h('dt', null, name), h('dd', null, value)]));
}
