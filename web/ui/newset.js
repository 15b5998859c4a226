/** The form that starts a data set: from what, out of what, and without what. */
import { addFiles } from './activity.js';
import { post } from './api.js';
import { button, fill, h, toast } from './dom.js';
import { showThumbnail } from './images.js';
import { selection } from './selection.js';
import { looksLikePicture } from './uploads.js';
import { count, some, wordsOf } from './words.js';

/** @param {any} app @param {{onjob: (job: any, name: string) => void}} options */
export function createNewSet(app, { onjob }) {
  /** @type {File[]} */
  let files = [];

  function show(body) {
    const picked = selection.ids(app.collection());
    let source = picked.length ? 'selected' : 'upload';
    const others = (app.status?.collections ?? []).filter((c) => c.name !== app.collection());
    const name = h('input', { type: 'text', class: 'input', id: 'set-name', required: true, pattern: '[A-Za-z0-9][A-Za-z0-9._\\-]*', maxLength: 64, value: `set-${new Date().toISOString().slice(0, 16).replaceAll(/[-:]/g, '').replace('T', '-')}`, spellcheck: false });
    const per = h('input', { type: 'number', class: 'input short', id: 'per-seed', min: 1, max: 1000, value: 4 });
    const method = h('select', { class: 'select', id: 'method' }, h('option', { value: 'sample' }, 'The nearest of each example'), h('option', { value: 'cluster' }, 'A share of each theme (large collections)'));
    const error = h('p', { class: 'error-text', role: 'alert' });
    const seeds = h('div', { class: 'seed-box' });
    const start = h('button', { type: 'submit', class: 'button primary' }, h('span', null, 'Build it'));
    const pool = h('strong', null, `${app.collection()} (${some(app.info()?.images ?? 0, 'picture')})`);

    const choices = [
      picked.length > 0 && ['selected', `The ${some(picked.length, 'selected picture')}`],
      ['upload', 'Pictures of mine'],
      others.length > 0 && ['collection', 'Another collection'],
    ].filter(Boolean);
    const other = h('select', { class: 'select', 'aria-label': 'Collection of examples' }, others.map((c) => h('option', { value: c.name }, `${c.name} (${count(c.images)})`)));

    function drawSeeds() {
      fill(seeds, h('div', { class: 'tabs', role: 'group', 'aria-label': 'Where the examples come from' }, choices.map(([value, words]) => h('button', { type: 'button', class: 'tab', 'aria-pressed': String(source === value), onclick: () => { source = value; drawSeeds(); } }, words))),
        source === 'selected' ? thumbs() : source === 'collection' ? other : uploads());
      start.disabled = source === 'upload' && files.length === 0;
    }
    function thumbs() {
      return h('ul', { class: 'thumbs' }, picked.slice(0, 60).map((id) => { const img = h('img', { alt: `Picture ${id}` }); showThumbnail(img, app.collection(), id, 72); return h('li', null, img); }),
        picked.length > 60 && h('li', { class: 'muted' }, `+${count(picked.length - 60)}`));
    }
    function uploads() {
      const input = h('input', { type: 'file', accept: 'image/*', multiple: true, class: 'unseen', tabIndex: -1, 'aria-label': 'Example pictures', onchange: () => take([...input.files]) });
      const place = h('div', { class: 'drop-area', dataset: { drop: 'set' } }, h('p', null, files.length ? `${some(files.length, 'picture')} chosen` : 'Drop example pictures here, or'), button({ icon: 'upload', label: files.length ? 'Add more' : 'Choose pictures', onclick: () => input.click() }), input);
      place.addEventListener('drop', (event) => take([...event.dataTransfer.files]));
      const small = h('ul', { class: 'thumbs' }, files.slice(0, 60).map((file) => { const img = h('img', { alt: file.name }); img.src = URL.createObjectURL(file); img.onload = () => URL.revokeObjectURL(img.src); return h('li', null, img); }));
      return [place, files.length > 0 && small];
    }
    function take(list) { files = [...files, ...list.filter(looksLikePicture)]; drawSeeds(); }

    const excluded = h('div', { class: 'check-list' }, others.map((c) => h('label', { class: 'check' }, h('input', { type: 'checkbox', value: c.name }), h('span', { class: 'grow' }, c.name), h('span', { class: 'muted' }, count(c.images)))));
    const form = h('form', {
      class: 'card start-form',
      onsubmit: async (event) => {
        event.preventDefault();
        error.textContent = '';
        start.disabled = true;
        try {
          const job = await post('/runs', {
            name: name.value.trim(), pool: app.collection(), seed: await seedOf(source, other.value, name.value.trim(), picked),
            exclude: [...excluded.querySelectorAll('input:checked')].map((input) => ({ collection: input.value })),
            method: method.value, per_seed: Number(per.value),
          });
          files = [];
          selection.on = false;
          selection.clear(app.collection());
          onjob(job, name.value.trim());
        } catch (problem) {
          error.textContent = wordsOf(problem);
          start.disabled = false;
        }
      },
    },
    h('fieldset', null, h('legend', null, '1. Examples'), h('p', { class: 'muted' }, 'A few good pictures of what you want.'), seeds),
    h('fieldset', null, h('legend', null, '2. Where to look'), h('p', null, pool), h('div', { class: 'form-row' },
      h('label', { class: 'field', for: 'method' }, 'What to take', method), h('label', { class: 'field', for: 'per-seed' }, 'For each example', per))),
    others.length > 0 && h('fieldset', null, h('legend', null, '3. What to keep out'), h('p', { class: 'muted' }, 'Nothing like a picture of these gets in: test sets, for example.'), excluded),
    h('label', { class: 'field', for: 'set-name' }, 'Name', name, h('span', { class: 'muted small-text' }, 'Letters, digits, dots and dashes.')),
    error, h('div', { class: 'form-foot' }, button({ label: 'Cancel', onclick: () => app.go({ sub: '', tab: '' }) }), start));
    drawSeeds();
    fill(body, h('div', { class: 'page-head' }, h('h1', null, 'New data set')), form);
  }

  /** The examples as the server wants them; pictures of one's own become a collection first. */
  async function seedOf(source, other, name, picked) {
    if (source === 'selected') return { collection: app.collection(), ids: picked };
    if (source === 'collection') return { collection: other };
    const collection = `examples-${name}`.slice(0, 60);
    try { await post('/collections', { name: collection }); } catch (problem) { if (problem.code !== 'collection_exists' && problem.status !== 409) throw problem; }
    const added = await addFiles(app, files, collection);
    if (!added.length) throw new Error('None of the pictures could be read, so there is nothing to start from.');
    if (added.length < files.length) toast(`${some(files.length - added.length, 'picture')} could not be read; the others are used.`);
    return { collection };
  }

  return { show };
}
