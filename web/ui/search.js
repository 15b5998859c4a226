/** The page of pictures: all of them, or those like what was asked for. */
import { Problem, within, get } from './api.js';
import { createCut } from './cut.js';
import { announce, button, fill, h, toast } from './dom.js';
import { createExamples } from './examples.js';
import { createFilters } from './filters.js';
import { createGrid } from './grid.js';
import { createQueryBox } from './querybox.js';
import { browse, countOf, later, search } from './request.js';
import { selection } from './selection.js';
import { selectionBar } from './selectionbar.js';
import { problemState, state as drawnState } from './states.js';
import { hitWords } from './tile.js';
import { askToTakeOut } from './takeout.js';
import { shrink, upload } from './uploads.js';
import { asks, blank, filterOf, same } from './url.js';
import { openViewer } from './viewer.js';
import { bytes, count, some } from './words.js';

const SLOW = 3500; // ms after which an explanation is given

/** @param {any} app see app.js */
export function createSearchPage(app) {
  let state = blank();
  let shown = '';
  let asked = null;
  let total = null;
  let viewer = null;
  let numbers = false;
  let answer = null;
  let lastSelected = -1;

  const queryBox = createQueryBox({ ongive: give });
  const examples = createExamples({
    collection: () => app.collection(),
    onremove: (role, example) => app.go({ [role]: state[role].filter((e) => !same(e, example)), ...(same(example, state.like[0] ?? {}) ? { crop: null } : {}) }),
    oncrop: (crop) => app.go({ crop }, { coalesce: 'crop' }),
    onclear: () => app.go({ like: [], unlike: [], crop: null, min: null, view: null }),
  });
  const filters = createFilters({ onchange: (chips, where) => app.go({ chips, where }) });
  const cut = createCut({
    onchange: (min) => { if (min !== state.min) app.go({ min }, { coalesce: 'min' }); },
    oncount: (min, signal) => countOf(app.collection(), state, min, signal),
  });
  const fold = h('input', { type: 'checkbox', class: 'switch', onchange: () => app.go({ fold: fold.checked }) });
  const summary = h('p', { class: 'summary' });
  const slow = h('p', { class: 'slow', role: 'status', hidden: true });
  const wrong = h('div');
  const numberToggle = button({ label: 'Numbers', class: 'quiet small', 'aria-pressed': 'false', title: 'Show similarities as numbers', onclick: () => { numbers = !numbers; numberToggle.setAttribute('aria-pressed', String(numbers)); grid.refresh(); } });
  const selectToggle = button({ icon: 'select', label: 'Select', class: 'quiet small', 'aria-pressed': 'false', onclick: () => { selection.on = !selection.on; selectionChanged(); } });
  const bar = selectionBar(app, () => grid.items);
  const refineToggle = button({ icon: 'filter', label: 'Refine', class: 'small refine', 'aria-expanded': 'false', onclick: () => { const on = page.classList.toggle('refining'); refineToggle.setAttribute('aria-expanded', String(on)); } });

  const grid = createGrid({
    label: 'Pictures', collectionOf: () => app.collection(), describe,
    onopen: (index) => openAt(grid.items[index]),
    onaction: act, onselect: select,
    onmore: sayHowMany,
    onproblem: (problem) => toast(`No more pictures for now: ${problem.message}`, { kind: 'error', action: { label: 'Try again', run: () => grid.retry() } }),
  });

  const hero = h('div', { class: 'hero' }, h('h1', null, 'Find pictures that look alike'),
    h('p', null, 'Give one picture. See every picture like it, closest first.'));
  const panel = h('aside', { class: 'panel', 'aria-label': 'Search settings' }, examples.element,
    h('div', { class: 'refinements' }, cut.element,
      h('label', { class: 'check fold' }, fold, h('span', { class: 'grow' }, 'Fold near-copies together'))));
  const results = h('section', { class: 'results', 'aria-label': 'Results' },
    h('div', { class: 'toolbar' }, summary, h('div', { class: 'toolbar-end' }, refineToggle, numberToggle, selectToggle)),
    filters.element, slow, wrong, grid.element);
  const page = h('div', { class: 'search-page' }, hero, queryBox.element, h('div', { class: 'columns' }, panel, results), bar.element);
  selection.watch(selectionChanged);

  function selectionChanged() {
    selectToggle.setAttribute('aria-pressed', String(selection.on));
    bar.draw();
    grid.refresh();
  }

  /** Selects a picture; with Shift all from the last one on. */
  function select(item, event) {
    const index = grid.items.indexOf(item);
    if (event.shiftKey && lastSelected >= 0) {
      const [from, to] = [Math.min(lastSelected, index), Math.max(lastSelected, index)];
      selection.add(app.collection(), grid.items.slice(from, to + 1).map((each) => each.id));
    } else selection.toggle(app.collection(), item.id);
    lastSelected = index;
  }

  /** What a tile shows. */
  function describe(item) {
    const liked = state.like.some((e) => e.kind === 'id' && e.value === String(item.id));
    const unliked = state.unlike.some((e) => e.kind === 'id' && e.value === String(item.id));
    const copies = item.duplicates?.length ?? 0;
    return {
      ...hitWords(item, numbers),
      badge: copies ? `+${copies} near-${copies === 1 ? 'copy' : 'copies'}` : '',
      tone: liked ? 'liked' : unliked ? 'unliked' : '', draggable: true,
      selected: selection.on ? selection.has(app.collection(), item.id) : null,
      actions: [
        { name: 'similar', icon: 'search', label: 'Search with this picture', corner: true, key: 's' },
        ...(asks(state) ? [
          { name: 'like', icon: 'plus', label: 'More like this', pressed: liked, key: '+' },
          { name: 'unlike', icon: 'minus', label: 'Less like this', pressed: unliked, key: '-' },
        ] : []),
      ],
    };
  }

  function act(name, item) {
    if (name === 'similar') give({ id: String(item.id) }, 'search');
    else mark(name, item.id);
  }

  /** Marks a picture as wanted or unwanted, or takes the mark back. */
  function mark(role, id) {
    const example = { kind: 'id', value: String(id) };
    const other = role === 'like' ? 'unlike' : 'like';
    const had = state[role].some((e) => same(e, example));
    const next = had ? state[role].filter((e) => !same(e, example)) : [...state[role], example];
    const first = role === 'like' ? next[0] : state.like.filter((e) => !same(e, example))[0];
    app.go({
      [role]: next, [other]: state[other].filter((e) => !same(e, example)),
      ...(first && state.like[0] && same(first, state.like[0]) ? {} : { crop: null }),
    });
    announce(had ? 'Mark removed' : role === 'like' ? 'Marked: more like this' : 'Marked: less like this');
  }

  /** Takes what was dropped, pasted, chosen or typed. */
  async function give(given, role) {
    if (!app.collection()) { toast('There are no pictures to search in yet.', { kind: 'error' }); return; }
    const fresh = role === 'search';
    const add = (list) => app.go(fresh
      ? { page: 'search', sub: '', tab: '', like: list, unlike: [], crop: null, view: null }
      : { page: 'search', sub: '', tab: '', [role]: [...app.state[role], ...list.filter((e) => !app.state[role].some((o) => same(o, e)))], view: null });
    if (fresh) scrollTo({ top: 0, behavior: 'instant' });
    viewer?.close();
    if (given.id) { add([{ kind: 'id', value: given.id }]); return; }
    if (given.url) { add([{ kind: 'url', value: given.url }]); return; }
    if (app.state.page !== 'search') app.go({ page: 'search', sub: '', tab: '' });
    const started = begin();
    page.classList.add('asking');
    fill(summary, 'Looking…');
    if (fresh) examples.preview(given.files[0]);
    const tokens = [];
    try {
      for (const file of given.files.slice(0, 16)) tokens.push({ kind: 'query', value: await uploaded(file, started.signal) });
      started.stop();
      add(tokens);
    } catch (problem) {
      started.stop();
      if (problem?.name !== 'AbortError') complain(problem, () => give(given, role), given.files[tokens.length]);
    }
  }

  /** Uploads one file; what is plainly too large is not even sent. */
  function uploaded(file, signal) {
    const most = app.status?.limits?.max_upload_bytes;
    if (most && file.size > most) {
      throw new Problem({ code: 'body_too_large', status: 413, title: 'That picture is too large', detail: `It has ${bytes(file.size)}; this server takes up to ${bytes(most)}.` });
    }
    return upload(app.collection(), file, signal);
  }

  /** Draws a problem in place of the pictures; offers a smaller copy of what was too large. */
  function complain(problem, retry, file) {
    grid.clear();
    grid.ready();
    shown = '';
    fill(summary);
    const more = [];
    if (problem.status === 413 && file) {
      more.push(button({
        label: 'Search with a smaller copy', class: 'primary',
        onclick: async () => {
          try { give({ files: [new File([await shrink(file, 1600, 0.9)], 'smaller.jpg', { type: 'image/jpeg' })] }, 'search'); } catch { toast('This browser cannot make that picture smaller.', { kind: 'error' }); }
        },
      }));
    }
    if (['address_refused', 'remote_too_large', 'remote_failed'].includes(problem.code)) more.push(button({ icon: 'upload', label: 'Choose a picture', class: 'primary', onclick: () => page.querySelector('.choose').click() }));
    if (problem.code === 'query_expired') more.push(button({ icon: 'upload', label: 'Choose the picture again', class: 'primary', onclick: () => page.querySelector('.choose').click() }));
    if (problem.code === 'invalid_filter') more.push(button({ label: 'Remove filters', class: 'primary', onclick: () => app.go({ chips: [], where: '' }) }));
    if (state.crop && problem.code === 'invalid_crop') more.push(button({ label: 'Use the whole picture', class: 'primary', onclick: () => app.go({ crop: null }) }));
    // Asking the same again changes nothing where the picture or its address is what is wrong.
    fill(wrong, problemState(problem, { retry: [400, 403, 410, 413, 415].includes(problem.status) ? undefined : retry, more }));
    page.classList.toggle('asking', asks(state));
    examples.show(state);
    announce(problem.title);
  }

  /** Everything that is waited for goes through here: the last one started wins. */
  function begin() {
    asked?.abort();
    const mine = new AbortController();
    asked = mine;
    fill(wrong);
    slow.hidden = true;
    grid.wait();
    const timer = setTimeout(() => {
      slow.hidden = false;
      fill(slow, 'Still looking. Large pictures and busy machines take longer. ', h('button', { type: 'button', class: 'link', onclick: () => { mine.abort(); stop(); grid.ready(); fill(summary, 'Stopped.'); shown = ''; } }, 'Stop'));
    }, SLOW);
    const stop = () => { clearTimeout(timer); if (asked === mine) slow.hidden = true; };
    return { signal: mine.signal, stop };
  }

  async function run() {
    const collection = app.collection();
    const { signal, stop } = begin();
    const mine = state;
    total = null;
    page.classList.toggle('asking', asks(mine));
    fill(summary, asks(mine) ? 'Looking…' : '');
    try {
      if (asks(mine)) {
        const found = await search(collection, mine, signal, renamed);
        answer = found.answer;
        if (signal.aborted) return;
        grid.replace(found.page, later(collection, found.state, signal));
      } else {
        answer = null;
        const loader = browse(collection, mine, signal);
        const first = await loader(null);
        if (signal.aborted) return;
        grid.replace(first, loader);
      }
      grid.ready();
      if (!grid.items.length) drawNothing();
      countAll(mine, signal);
      openFromAddress();
    } catch (problem) {
      if (problem?.name === 'AbortError' || signal.aborted) return;
      complain(problem, run);
    } finally {
      stop();
    }
  }

  /** Uploads got new tokens: the address follows, the search does not start again. */
  function renamed(tokens) {
    examples.refresh();
    state = app.renamed(tokens);
    shown = signature(state);
    examples.show(state);
  }

  /** How many there are in all, which the list does not say. */
  async function countAll(mine, signal) {
    try {
      if (!asks(mine) && !filterOf(mine)) total = app.info()?.images ?? null;
      else total = await countOf(app.collection(), mine, mine.min, signal);
    } catch { total = null; }
    if (!signal.aborted) { sayHowMany(grid.items, grid.complete); if (asks(mine)) cut.recount(mine.min); }
  }

  function sayHowMany(items, complete) {
    const n = complete && !(asks(state) && state.fold) ? items.length : total;
    const folded = items.reduce((sum, item) => sum + (item.duplicates?.length ?? 0), 0);
    const many = n !== null ? some(n, 'picture') : complete ? some(items.length, 'picture') : `${count(items.length)} pictures and more`;
    const text = asks(state) ? `${many}, closest first${folded && complete ? `; ${some(folded, 'near-copy', 'near-copies')} folded` : ''}` : many;
    if (summary.textContent === text || !items.length) return;
    fill(summary, text);
    announce(asks(state) ? `Found ${text}` : text);
  }

  function drawNothing() {
    fill(summary, 'No pictures');
    announce('No pictures found');
    const filtered = state.chips.length > 0 || state.where;
    if (filtered || state.min !== null) {
      fill(wrong, drawnState({
        icon: 'filter', title: 'Nothing passes',
        text: state.min !== null ? 'No picture is as alike as the slider asks for. Move it to the left.' : 'No picture passes these filters.',
        actions: [filtered && button({ label: 'Remove filters', class: 'primary', onclick: () => app.go({ chips: [], where: '' }) }),
          state.min !== null && button({ label: 'Show everything', class: filtered ? '' : 'primary', onclick: () => app.go({ min: null }) })].filter(Boolean),
      }));
    } else fill(wrong, app.emptyState());
  }

  function openAt(item) { app.go({ view: item.id }); }

  /** Opens or closes the viewer as the address says. */
  async function openFromAddress() {
    if (state.view === null) { const open = viewer; viewer = null; open?.close(); return; }
    if (viewer) { if (viewer.id === state.view) return; viewer.quiet = true; viewer.close(); viewer = null; }
    let item = grid.items.find((each) => each.id === state.view);
    if (!item) {
      try { item = await get(within(app.collection(), `/images/${state.view}`)); } catch (problem) {
        toast(problem.status === 404 ? 'That picture is no longer in the collection.' : problem.message, { kind: 'error' });
        app.go({ view: null }, { replace: true });
        return;
      }
      if (state.view !== item.id || viewer) return;
    }
    const mine = openViewer(item, {
      items: () => grid.items, loadMore: grid.complete ? undefined : () => grid.loadMore(), collectionOf: () => app.collection(),
      onmove: (now) => { app.go({ view: now.id }, { replace: true }); },
      onclose: (now, index) => {
        if (viewer === mine) viewer = null;
        if (!mine.quiet && app.state.view !== null) app.back({ view: null });
        if (index >= 0) requestAnimationFrame(() => { if (!document.querySelector('dialog[open]')) grid.focus(index); });
      },
      actions: viewerActions,
    });
    viewer = mine;
  }

  function viewerActions(item) {
    const liked = state.like.some((e) => e.kind === 'id' && e.value === String(item.id));
    const unliked = state.unlike.some((e) => e.kind === 'id' && e.value === String(item.id));
    return [
      { icon: 'search', label: 'Find pictures like this', primary: true, run: () => give({ id: String(item.id) }, 'search') },
      { icon: 'plus', label: 'More like this', pressed: liked, run: () => mark('like', item.id) },
      { icon: 'minus', label: 'Less like this', pressed: unliked, run: () => mark('unlike', item.id) },
      { icon: 'select', label: 'Select', pressed: selection.has(app.collection(), item.id), run: () => { selection.on = true; selection.toggle(app.collection(), item.id); } },
      { icon: 'link', label: 'Copy link', run: () => navigator.clipboard?.writeText(location.href).then(() => toast('The link is copied.'), () => toast('The link could not be copied; take it from the address bar.', { kind: 'error' })) },
      ...(app.canWrite() ? [{ icon: 'trash', label: 'Take out…', class: 'quiet take-away', run: () => askToTakeOut(app, item, () => { shown = ''; viewer?.close(); }) }] : []),
    ];
  }

  grid.element.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const item = grid.items[grid.active];
    if (!item) return;
    const keyed = event.key.toLowerCase();
    if (keyed === 'x') { selection.on = true; selection.toggle(app.collection(), item.id); } else if (keyed === 'l') mark('like', item.id);
    else if (keyed === 'u') mark('unlike', item.id);
    else if ((event.key === '+' || event.key === '-') && !asks(state)) mark(event.key === '+' ? 'like' : 'unlike', item.id);
    else return;
    event.preventDefault();
  });

  /** What decides which pictures are shown. */
  const signature = (of) => JSON.stringify([app.collection(), of.like, of.unlike, of.crop, filterOf(of), asks(of) && of.min, asks(of) && of.fold]);

  return {
    element: page,
    title: () => (asks(state) ? 'Alike' : 'Pictures'),
    focusSearch: () => queryBox.focus(),
    focusGrid: () => grid.focusActive(),
    give,
    /** Shows a state; searches where it asks for something else than what is shown. */
    show(next) {
      state = next;
      const asking = asks(next);
      page.classList.toggle('asking', asking);
      filters.setFields(app.info()?.payload_fields ?? []);
      filters.show(next.chips, next.where);
      examples.show(next);
      cut.show(next.min);
      fold.checked = next.fold;
      numberToggle.hidden = !asking;
      const wanted = signature(next);
      const empty = !app.collection() || app.info()?.images === 0;
      page.classList.toggle('empty', empty);
      if (empty) {
        shown = '';
        grid.clear();
        fill(summary);
        fill(wrong, app.emptyState());
        return;
      }
      if (wanted !== shown) { shown = wanted; run(); } else openFromAddress();
      grid.refresh();
      bar.draw();
    },
    leave() { viewer?.close(); },
    /** Asks again: the collection changed. */
    reload() { shown = ''; this.show(state); },
    get answer() { return answer; },
  };
}
