/** The frame of the page: what it shows, where it is, and whether the server is there. */
import { get, onKeyWanted, onReach, within } from './api.js';
import { announce, button, fill, h, icon, logo, typing } from './dom.js';
import { createActivityPage } from './activity.js';
import { createDuplicatesPage } from './duplicates.js';
import { askForKey, showHelp } from './help.js';
import { createJobs, progressWords } from './jobs.js';
import { listenEverywhere } from './querybox.js';
import { createSearchPage } from './search.js';
import { createSetsPage } from './sets.js';
import { notice, problemState, state as drawnState } from './states.js';
import { theme } from './theme.js';
import { asks, blank, format, parse } from './url.js';
import { count } from './words.js';

const LAST = 'akin-collection';
const main = document.getElementById('main');
const notices = document.getElementById('notice');
const PAGES = { search: 'Search', duplicates: 'Duplicates', sets: 'Data sets', activity: 'Activity' };

/** @type {Map<string, any>} what is known of each collection */
const known = new Map();
let reachable = true;
let joined = { key: '', at: 0 };

const app = {
  state: parse(location.hash),
  /** @type {any} the server's `/status` */
  status: null,
  jobs: null,

  /** The collection in use: the address's, the last one used, or the first there is. */
  collection() {
    if (app.state.collection) return app.state.collection;
    const names = (app.status?.collections ?? []).map((c) => c.name);
    let last = '';
    try { last = localStorage.getItem(LAST) ?? ''; } catch { /* the first, then */ }
    return names.includes(last) ? last : names.includes('default') ? 'default' : names[0] ?? '';
  },
  info: () => known.get(app.collection()) ?? (app.status?.collections ?? []).find((c) => c.name === app.collection()) ?? null,
  canWrite: () => ['write', 'admin'].includes(app.status?.role ?? 'admin'),
  isAdmin: () => (app.status?.role ?? 'admin') === 'admin',

  /**
   * Goes somewhere. `coalesce` makes quick changes of one kind a single step of the back button.
   * @param {Partial<import('./url.js').State>} patch
   */
  go(patch, { replace = false, coalesce = '' } = {}) {
    const next = { ...app.state, collection: app.collection(), ...patch };
    if (format(next) === format(app.state)) return;
    const opened = app.state.view === null && next.view !== null;
    const now = Date.now();
    const join = coalesce !== '' && joined.key === coalesce && now - joined.at < 1500;
    joined = { key: coalesce, at: now };
    if (replace || join) history.replaceState(history.state, '', format(next));
    else history.pushState({ opened }, '', format(next));
    const before = app.state;
    app.state = next;
    render(before);
  },
  /** Back where a picture was opened from; where it was opened by its link, only closes it. */
  back(patch) {
    if (history.state?.opened) history.back();
    else app.go(patch, { replace: true });
  },
  /** Tokens of uploads that were renewed. */
  renamed(tokens) {
    const swap = (list) => list.map((e) => (e.kind === 'query' && tokens.has(e.value) ? { ...e, value: tokens.get(e.value) } : e));
    app.state = { ...app.state, like: swap(app.state.like), unlike: swap(app.state.unlike) };
    history.replaceState(history.state, '', format(app.state));
    return app.state;
  },

  /** What is drawn where a collection has no pictures. */
  emptyState() {
    const reading = app.jobs?.running('index')[0];
    if (reading) return drawnState({ icon: 'clock', title: 'Reading your pictures', text: 'They appear here as they are read.', actions: [button({ label: 'Show activity', onclick: () => app.go({ page: 'activity' }) })] });
    return drawnState({
      icon: 'image', title: 'No pictures yet',
      text: [h('span', null, 'Give Akin a folder of pictures: stop it, and start it again with '), h('code', null, 'akin serve --index ~/Pictures'), '.', app.canWrite() && ' Or add some here.'],
      actions: app.canWrite() ? [button({ icon: 'plus', label: 'Add pictures', class: 'primary', onclick: () => app.go({ page: 'activity', tab: 'add' }) })] : [],
    });
  },

  /** Asks the server how it is, and what the collection in use has. */
  async refresh() {
    app.status = await get('/status');
    const name = app.collection();
    const short = app.status.collections?.find((c) => c.name === name);
    const had = known.get(name);
    if (short && (!had || had.sequence !== short.sequence || had.images !== short.images)) {
      try { known.set(name, await get(within(name))); } catch { known.set(name, short); }
    }
    drawHeader();
    drawNotices();
    return had && short && had.images !== short.images;
  },
};

app.jobs = createJobs(app, { onchange: () => { drawHeader(); drawNotices(); }, onend: jobEnded });
const search = createSearchPage(app);
const pages = { search, duplicates: createDuplicatesPage(app), sets: createSetsPage(app), activity: createActivityPage(app) };
let current = null;

/** Draws where we are. */
function render(before = null) {
  const page = pages[app.state.page];
  if (current !== page) {
    current?.leave?.();
    fill(main, page.element);
    current = page;
    if (before) { scrollTo({ top: 0, behavior: 'instant' }); main.focus({ preventScroll: true }); }
  }
  if (before && before.collection !== app.state.collection) {
    try { localStorage.setItem(LAST, app.collection()); } catch { /* not remembered */ }
    app.refresh().then(() => page.show(app.state), () => {});
  }
  page.show(app.state);
  document.title = app.state.page === 'search' ? 'Akin' : `${PAGES[app.state.page]} – Akin`;
  drawHeader();
  drawNotices();
}

const nav = h('nav', { class: 'nav', 'aria-label': 'Main' });
const collections = h('select', { class: 'select', 'aria-label': 'Collection', onchange: () => app.go({ ...blank(), page: app.state.page === 'sets' ? 'sets' : app.state.page, collection: collections.value }) });
const collectionBox = h('label', { class: 'collection' }, icon('stack'), collections);
const themeButton = button({ icon: theme.icon(), label: theme.words(), iconOnly: true, class: 'quiet theme', onclick: () => { theme.turn(); drawTheme(); announce(theme.words()); } });
function drawTheme() {
  fill(themeButton, icon(theme.icon()));
  themeButton.setAttribute('aria-label', theme.words());
  themeButton.title = theme.words();
}
fill(document.getElementById('header'),
  h('a', { class: 'brand', href: '#/search', 'aria-label': 'Akin: start page' }, logo(), h('span', null, 'Akin')),
  nav, h('div', { class: 'header-end' }, collectionBox, themeButton,
    button({ icon: 'help', label: 'Help and keys', iconOnly: true, class: 'quiet', onclick: showHelp })));

function drawHeader() {
  const running = app.jobs?.running().length ?? 0;
  const links = Object.entries(PAGES).map(([page, name]) => [page, name, page === 'activity' && running ? running : 0]);
  const drawn = JSON.stringify([links, app.state.page, app.collection()]);
  if (nav.dataset.drawn !== drawn) {
    nav.dataset.drawn = drawn;
    const focused = nav.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
    fill(nav, links.map(([page, name, n]) => h('a', {
      href: format({ ...blank(), page, collection: app.state.collection }), class: app.state.page === page ? 'here' : '',
      ...(app.state.page === page ? { 'aria-current': 'page' } : {}),
    }, name, n > 0 && h('span', { class: 'dot', 'aria-label': `, ${n} running` }, String(n)))));
    if (focused) [...nav.children].find((a) => a.getAttribute('href') === focused)?.focus();
  }
  const list = app.status?.collections ?? [];
  const options = JSON.stringify(list.map((c) => [c.name, c.images]));
  if (collections.dataset.drawn !== options) {
    collections.dataset.drawn = options;
    fill(collections, list.map((c) => h('option', { value: c.name }, `${c.name} (${count(c.images)})`)));
  }
  collections.value = app.collection();
  collectionBox.hidden = list.length === 0;
}

/** Lines about what is limited at the moment. */
function drawNotices() {
  const lines = [];
  if (!reachable) lines.push(notice({ icon: 'offline', kind: 'error', text: 'Akin does not answer. This page waits and goes on by itself.' }));
  const { status } = app;
  const info = app.info();
  if (status && !status.model) lines.push(notice({ icon: 'warn', kind: 'warn', text: 'No model is loaded, so your own pictures cannot be searched with. Searching with pictures that are here works.' }));
  if (status?.degraded) lines.push(notice({ icon: 'warn', kind: 'warn', text: typeof status.degraded === 'string' ? status.degraded : 'Running on the processor instead of the graphics card: searches take longer.' }));
  if (status && info?.servable === false) lines.push(notice({ icon: 'warn', kind: 'warn', text: `“${info.name}” was made with another model than the one that is loaded. Its pictures can be looked at, but not searched with pictures of yours.` }));
  for (const job of app.jobs?.running('index') ?? []) {
    if (job.collection && job.collection !== app.collection()) continue;
    if (app.state.page === 'activity') continue;
    lines.push(notice({ name: job.id, icon: 'clock', text: `${progressWords(job)}. What has been read can be searched already.`, action: h('a', { class: 'link', href: format({ ...blank(), page: 'activity' }) }, 'Details') }));
  }
  // Those that are there stay where they are, whatever they count by now: a link in one is not taken
  // away from under a press, nor is the focus.
  const old = [...notices.children];
  if (old.length === lines.length && lines.every((line, i) => line.dataset.name === old[i].dataset.name)) {
    lines.forEach((line, i) => {
      const [was, now] = [old[i].querySelector('.grow'), line.querySelector('.grow')];
      if (was.textContent !== now.textContent) was.textContent = now.textContent;
    });
    return;
  }
  fill(notices, lines);
}

/** A job is over: the collection may have changed. */
async function jobEnded(job) {
  try {
    const changed = await app.refresh();
    if (app.state.page === 'search' && changed && !asks(app.state) && scrollY < 300) search.reload();
  } catch { /* the next look at the server tells */ }
  announce(`${job.kind === 'index' ? 'Reading pictures' : 'Work'}: ${job.state}`);
}

onKeyWanted(askForKey);
onReach((yes) => {
  if (yes === reachable) return;
  reachable = yes;
  drawNotices();
  announce(yes ? 'Akin answers again' : 'Akin does not answer');
  if (yes && document.querySelector('.state.error')) setTimeout(() => current?.reload?.(), 50);
});

addEventListener('popstate', () => {
  const before = app.state;
  app.state = parse(location.hash);
  render(before);
});

addEventListener('keydown', (event) => {
  const modal = /** @type {HTMLDialogElement|null} */ (document.querySelector('dialog[open]'));
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'k') {
    event.preventDefault();
    if (modal) modal.close();
    if (app.state.page !== 'search') app.go({ ...blank(), collection: app.state.collection });
    search.focusSearch();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (event.key === '?') { event.preventDefault(); showHelp(); } else if (modal) { /* its own keys only */ } else if (event.key === '/') {
    event.preventDefault();
    if (app.state.page !== 'search') app.go({ ...blank(), collection: app.state.collection });
    search.focusSearch();
  } else if (event.key === 'ArrowDown' && app.state.page === 'search' && document.activeElement === document.body) {
    event.preventDefault();
    search.focusGrid();
  }
});

listenEverywhere({ ongive: (given, role) => search.give(given, role), hasQuery: () => app.state.page === 'search' && asks(app.state) });

/** Looks at the server now and then: often while it is away or at work, seldom otherwise. */
async function watch() {
  try {
    if (!document.hidden) {
      const changed = await app.refresh();
      app.jobs.check(app.status);
      if (changed && app.state.page === 'search' && !asks(app.state) && scrollY < 300) search.reload();
    }
  } catch { /* the notice says so */ }
  setTimeout(watch, !reachable ? 2000 : app.jobs.running().length ? 5000 : 15000);
}

/** The first look; nothing can be shown before it. */
async function start() {
  fill(main, h('div', { class: 'starting', role: 'status' }, logo(), h('p', null, 'One moment…')));
  drawHeader();
  try {
    await app.refresh();
  } catch (problem) {
    fill(main, problemState(problem, { retry: start, more: problem.status === 401 ? [button({ icon: 'key', label: 'Give a key', class: 'primary', onclick: start })] : [] }));
    if (problem.code === 'unreachable') setTimeout(() => { if (!app.status) start(); }, 2500);
    return;
  }
  if (!history.state) history.replaceState({ opened: false }, '', location.hash || '#/search');
  await app.jobs.check(app.status, true);
  render();
  setTimeout(watch, 3000);
}
start();
