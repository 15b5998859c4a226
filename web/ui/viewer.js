/** One picture, large: what is known of it, what is like it, and what can be done with it. */
import { get, key, post, within } from './api.js';
import { button, fill, h, toast } from './dom.js';
import { openOriginal, original, showOriginal, showThumbnail } from './images.js';
import { bytes, count, fileName, folder, likeness, moment, percentile, wordsOf } from './words.js';

const NEIGHBOURS = 12;

/**
 * @param {{
 *   items: () => any[], loadMore?: () => Promise<void>, collectionOf: (item: any) => string,
 *   onmove: (item: any) => void, onclose: (item: any, index: number) => void,
 *   actions: (item: any) => {icon: string, label: string, class?: string, pressed?: boolean, primary?: boolean, run: () => void, closes?: boolean}[],
 *   extra?: (item: any) => any, neighbours?: boolean, meaning?: boolean
 * }} options
 */
export function openViewer(start, options) {
  let index = options.items().findIndex((item) => item.id === start.id);
  let item = index >= 0 ? options.items()[index] : start;
  let asked = null;
  const before = document.activeElement;

  const img = h('img', { class: 'viewer-img', alt: '' });
  const note = h('p', { class: 'viewer-note', role: 'status' });
  const prev = button({ icon: 'left', label: 'Previous picture', iconOnly: true, class: 'turn prev', onclick: () => turn(-1) });
  const following = button({ icon: 'right', label: 'Next picture', iconOnly: true, class: 'turn next', onclick: () => turn(1) });
  const title = h('h2', { id: 'viewer-title' });
  const side = h('div', { class: 'viewer-side' });
  const actions = h('div', { class: 'viewer-actions' });
  const meaning = h('div', { class: 'viewer-meaning' });
  const facts = h('dl', { class: 'facts' });
  const copies = h('div');
  const neighbours = h('div', { class: 'neighbours' });
  const extra = h('div');
  side.append(h('div', { class: 'viewer-top' }, title, button({ icon: 'close', label: 'Close', iconOnly: true, class: 'quiet', onclick: () => box.close() })), meaning, actions, extra, copies, neighbours, facts);
  const box = h('dialog', { class: 'viewer', 'aria-labelledby': 'viewer-title' }, h('div', { class: 'viewer-stage' }, img, prev, following, note), side);

  async function turn(by) {
    const all = options.items();
    if (index < 0) return;
    if (index + by >= all.length) await options.loadMore?.();
    const to = index + by;
    if (to < 0 || to >= options.items().length) return;
    index = to;
    item = options.items()[index];
    draw();
    options.onmove(item);
  }

  /** Buttons are drawn again after each press, for their pressed state. */
  function drawActions() {
    const had = actions.contains(document.activeElement) ? [...actions.children].indexOf(document.activeElement) : -1;
    fill(actions, options.actions(item).map((action) => button({
      icon: action.icon, label: action.label, class: [action.primary && 'primary', action.class].filter(Boolean).join(' '),
      ...(action.pressed !== undefined ? { 'aria-pressed': String(action.pressed) } : {}),
      onclick: () => { if (action.closes) box.close(); action.run(); if (!action.closes) drawActions(); },
    })));
    if (had >= 0) actions.children[had]?.focus();
  }

  function draw() {
    const collection = options.collectionOf(item);
    title.textContent = fileName(item.path) || `Picture ${item.id}`;
    img.alt = `${fileName(item.path)}${item.label ? `, ${item.label}` : ''}`;
    prev.disabled = index <= 0;
    following.disabled = index < 0 || (index + 1 >= options.items().length && !options.loadMore);
    note.textContent = '';
    if (item.width && item.height) {
      img.style.setProperty('--ratio', String(item.width / item.height));
      img.style.setProperty('--w', `${Math.max(item.width * 1.5, 320)}px`);
    }
    showOriginal(img, collection, item.id, (state) => {
      note.textContent = state === 'preview-only' ? 'A preview: the file itself is gone, has changed, or is of a kind browsers cannot show.' : '';
    });
    fill(meaning, options.meaning !== false && item.similarity !== undefined && [
      h('span', { class: 'meaning-label' }, likeness(item)),
      item.percentile !== null && item.percentile !== undefined && h('span', { class: 'muted' }, `${percentile(item.percentile)} of all pairs of pictures here`),
      h('span', { class: 'muted mono' }, `similarity ${item.similarity.toFixed(4)}`),
    ]);
    drawActions();
    fill(extra, options.extra?.(item));
    drawFacts(item);
    asked?.abort();
    asked = new AbortController();
    if (item.sha256 === undefined) loadFacts(collection, asked.signal);
    drawCopies(collection);
    fill(neighbours);
    if (options.neighbours !== false) loadNeighbours(collection, asked.signal);
  }

  async function loadFacts(collection, signal) {
    const mine = item;
    try {
      const whole = await get(within(collection, `/images/${mine.id}`), undefined, signal);
      if (mine === item) drawFacts({ ...mine, ...whole });
    } catch { /* what the list said is shown already */ }
  }

  function drawFacts(known) {
    const rows = [
      ['Folder', folder(known.path)],
      ['Size', known.width ? `${known.width} × ${known.height} pixels` : ''],
      ['File', bytes(known.bytes)],
      ['Changed', moment(known.modified)],
      ...Object.entries(known.payload ?? {}).flatMap(([name, value]) => flat(name, value)),
      ['Number here', String(known.id)],
    ];
    fill(facts, rows.filter(([, value]) => value !== '' && value !== undefined).map(([name, value]) => [h('dt', null, name), h('dd', null, String(value))]),
      h('dt', null, 'Original'), h('dd', null, originalLink(options.collectionOf(known), known.id)));
  }

  function drawCopies(collection) {
    const ids = item.duplicates ?? [];
    fill(copies, ids.length > 0 && [
      h('h3', null, `${count(ids.length)} near-${ids.length === 1 ? 'copy' : 'copies'} folded away`),
      strip(collection, ids.slice(0, 24).map((id) => ({ id, path: '' })), 'Near-copy'),
    ]);
  }

  async function loadNeighbours(collection, signal) {
    const mine = item;
    fill(neighbours, h('h3', null, 'Closest to this one'), h('div', { class: 'strip waiting', 'aria-hidden': 'true' }, Array.from({ length: 6 }, () => h('span', { class: 'bone' }))));
    try {
      const answer = await post(within(collection, '/search'), { positive: [{ id: mine.id }], k: NEIGHBOURS + 1, hide_duplicates: true }, signal);
      if (mine !== item) return;
      const others = answer.hits.filter((hit) => hit.id !== mine.id).slice(0, NEIGHBOURS);
      fill(neighbours, others.length > 0 && [h('h3', null, 'Closest to this one'), strip(collection, others, '')]);
    } catch (error) {
      if (error?.name !== 'AbortError' && mine === item) fill(neighbours);
    }
  }

  /** A row of small pictures; one opens in place of this one. */
  function strip(collection, list, word) {
    return h('ul', { class: 'strip' }, list.map((each) => {
      const small = h('img', { alt: '' });
      showThumbnail(small, collection, each.id, 88);
      const words = [fileName(each.path) || word || `Picture ${each.id}`, each.label ?? (each.similarity !== undefined ? likeness(each) : '')].filter(Boolean).join(', ');
      return h('li', null, h('button', { type: 'button', class: 'strip-item', 'aria-label': words, title: words, onclick: () => jump(each) }, small));
    }));
  }

  function jump(to) {
    index = options.items().findIndex((each) => each.id === to.id);
    item = index >= 0 ? options.items()[index] : { ...to, similarity: undefined, percentile: undefined, label: undefined };
    draw();
    side.scrollTop = 0;
    options.onmove(item);
  }

  box.addEventListener('keydown', (event) => {
    if (event.target.matches('input, textarea, select') || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'ArrowLeft') { event.preventDefault(); turn(-1); }
    if (event.key === 'ArrowRight') { event.preventDefault(); turn(1); }
  });
  let from = null;
  const stage = box.firstElementChild;
  stage.addEventListener('pointerdown', (event) => { from = event.pointerType === 'touch' ? event.clientX : null; });
  stage.addEventListener('pointerup', (event) => {
    if (from !== null && Math.abs(event.clientX - from) > 60) turn(event.clientX < from ? 1 : -1);
    from = null;
  });
  stage.addEventListener('click', (event) => { if (event.target === stage) box.close(); });
  box.addEventListener('close', () => {
    asked?.abort();
    box.remove();
    options.onclose(item, index);
    if (document.activeElement === document.body && before instanceof HTMLElement && before.isConnected) before.focus();
  });
  document.body.append(box);
  box.showModal();
  draw();
  actions.querySelector('button')?.focus();
  return {
    element: box,
    get id() { return item.id; },
    close: () => box.close(),
  };
}

/** The way to the file itself. A link cannot carry a key, so with one it is a button. */
function originalLink(collection, id) {
  if (!key()) return h('a', { href: original(collection, id).href, target: '_blank', rel: 'noopener' }, 'Open the file');
  return h('button', { type: 'button', class: 'link', onclick: () => openOriginal(collection, id).catch((problem) => toast(wordsOf(problem), { kind: 'error' })) }, 'Open the file');
}

/** A value of the payload as rows; objects by their parts. */
function flat(name, value) {
  if (value === null || value === undefined) return [];
  if (Array.isArray(value)) return value.length ? [[name, value.map(String).join(', ')]] : [];
  if (typeof value === 'object') return Object.entries(value).flatMap(([part, inner]) => flat(`${name}.${part}`, inner));
  return [[name, typeof value === 'boolean' ? (value ? 'yes' : 'no') : String(value)]];
}
