/** One data set: how it came about, what is in and what is not and why, the last word, and export. */
import { get, post } from './api.js';
import { announce, button, fill, h, icon, toast } from './dom.js';
import { exportSet } from './exportset.js';
import { createGrid } from './grid.js';
import { showThumbnail } from './images.js';
import { problemState, state as drawnState } from './states.js';
import { openViewer } from './viewer.js';
import { count, fileName, moment, reasonWords, ruleWords, some, stepWords, wordsOf } from './words.js';

/** @param {any} app */
export function createSetPage(app) {
  const page = h('div', { class: 'set-page' });
  let name = '';
  let run = null;
  let kept = true;
  let rule = '';
  let ask = null;
  let review = { accepted: 0, rejected: 0, can_undo: false };
  /** Decisions made here, newest last, with what stood before. @type {{id: number, before: string|undefined}[]} */
  let made = [];
  /** @type {Map<number, string>} */
  const decided = new Map();

  const path = (rest = '') => `/runs/${encodeURIComponent(name)}${rest}`;
  const tabs = h('div', { class: 'tabs', role: 'group', 'aria-label': 'In or out' });
  const rules = h('select', { class: 'select', 'aria-label': 'Reason', onchange: () => { rule = rules.value; load(); } });
  const summary = h('p', { class: 'summary' });
  const wrong = h('div');
  const foot = h('div', { class: 'decision-bar', role: 'region', 'aria-label': 'Your decisions' });

  const grid = createGrid({
    label: 'Pictures of the data set', smallest: 200, collectionOf: () => run?.pool ?? app.collection(), describe,
    onopen: (index) => open(grid.items[index]), onaction: (action, item) => decide(action, item.id),
    onproblem: (problem) => toast(wordsOf(problem), { kind: 'error', action: { label: 'Try again', run: () => grid.retry() } }),
  });

  const stateOf = (item) => decided.get(item.id) ?? normal(item.decision);
  const normal = (decision) => ({ accept: 'accepted', reject: 'rejected' })[decision] ?? decision ?? '';
  function describe(item) {
    const decision = stateOf(item);
    const words = { accepted: 'You put it in', rejected: 'You took it out' }[decision];
    return {
      label: words ?? ruleWords(item.rule), sub: shortReason(item),
      tone: decision === 'accepted' ? 'liked' : decision === 'rejected' ? 'unliked' : '',
      actions: !app.canWrite() ? [] : [
        item.kept ? { name: 'reject', icon: 'close', label: 'Take it out', pressed: decision === 'rejected', key: '-' }
          : { name: 'accept', icon: 'check', label: 'Put it in', pressed: decision === 'accepted', key: '+' },
      ],
    };
  }
  const shortReason = (item) => (item.similarity !== undefined && item.similarity !== null ? `similarity ${Number(item.similarity).toFixed(3)}` : stepWords(item.step));

  async function show(state) {
    if (name === state.sub && run) return;
    name = state.sub;
    run = null;
    made = [];
    decided.clear();
    fill(page, h('div', { class: 'page-head' }, h('h1', null, name)), h('div', { class: 'bones' }, h('div', { class: 'bone tall' })));
    try {
      run = await get(path());
      review = (await get(path('/review')).catch(() => null)) ?? review;
    } catch (problem) {
      const failed = name;
      name = '';
      fill(page, h('div', { class: 'page-head' }, h('h1', null, failed)), problemState(problem, { retry: () => show(state), more: [button({ label: 'All data sets', onclick: () => app.go({ sub: '' }) })] }));
      return;
    }
    draw();
    load();
  }

  function draw() {
    fill(page,
      h('div', { class: 'page-head with-action' },
        h('div', null, h('p', { class: 'crumb' }, h('a', { href: '#/sets' }, 'Data sets')), h('h1', null, run.name ?? name),
          h('p', { class: 'muted' }, [`from ${run.pool}`, seedWords(run.seeds ?? run.seed), moment(run.created)].filter(Boolean).join(' · '))),
        button({ icon: 'download', label: 'Export', class: 'primary', disabled: !app.canWrite(), onclick: () => exportSet(app, run.name ?? name) })),
      accounting(run.accounting ?? []),
      h('div', { class: 'toolbar' }, tabs, h('div', { class: 'toolbar-end' }, rules)), summary, wrong, grid.element, foot);
    drawTabs();
    drawFoot();
  }

  function drawTabs() {
    fill(tabs, /** @type {[boolean, string][]} */ ([[true, 'In the set'], [false, 'Left out']]).map(([value, words]) => h('button', { type: 'button', class: 'tab', 'aria-pressed': String(kept === value), onclick: () => { kept = value; rule = ''; drawTabs(); load(); } }, words)));
    const names = new Map();
    for (const step of run.accounting ?? []) for (const [each, n] of entries(step.rules)) names.set(each, (names.get(each) ?? 0) + n);
    fill(rules, h('option', { value: '' }, 'Every reason'), [...names].map(([each, n]) => h('option', { value: each }, `${ruleWords(each)} (${count(n)})`)));
    rules.value = rule;
    rules.hidden = kept || names.size < 2;
  }

  async function load() {
    ask?.abort();
    ask = new AbortController();
    const { signal } = ask;
    fill(wrong);
    grid.wait();
    const loader = async (cursor) => {
      const answer = await get(path('/images'), { kept, rule, cursor, limit: 120 }, signal);
      if (cursor === null) fill(summary, `${some(answer.total ?? answer.images.length, 'picture')} ${kept ? 'in the set' : 'left out'}${rule ? `: ${ruleWords(rule).toLowerCase()}` : ''}`);
      return { items: answer.images, next: answer.next_cursor ?? null };
    };
    try {
      const first = await loader(null);
      if (signal.aborted) return;
      grid.replace(first, loader);
      grid.ready();
      announce(summary.textContent ?? '');
      if (!first.items.length) fill(wrong, drawnState({ icon: 'image', title: kept ? 'Nothing is in' : 'Nothing was left out', text: kept ? 'No picture was like the examples, or every one was a copy. The table above says at which step they went.' : '' }));
    } catch (problem) {
      if (problem?.name === 'AbortError' || signal.aborted) return;
      grid.clear();
      grid.ready();
      fill(wrong, problemState(problem, { retry: load }));
    }
  }

  /** Puts a picture in or out; pressing again takes it back. */
  async function decide(action, id) {
    const done = action === 'accept' ? 'accepted' : 'rejected';
    if (stateOf(grid.items.find((each) => each.id === id) ?? { id }) === done) {
      // The server takes back the last decision only; an earlier one is answered by its opposite.
      if (made[made.length - 1]?.id === id) { await undo(); return; }
      await decide(action === 'accept' ? 'reject' : 'accept', id);
      return;
    }
    try {
      review = (await post(path('/review'), { action, ids: [id] })) ?? review;
    } catch (problem) { toast(wordsOf(problem), { kind: 'error' }); return; }
    made.push({ id, before: decided.get(id) });
    decided.set(id, done);
    grid.refresh();
    drawFoot();
    announce(action === 'accept' ? 'Put in' : 'Taken out');
  }

  /** Takes back the last decision, whoever made it. */
  async function undo() {
    try {
      review = (await post(path('/review'), { action: 'undo' })) ?? review;
    } catch (problem) { toast(wordsOf(problem), { kind: 'error' }); return; }
    const last = made.pop();
    if (last) {
      if (last.before === undefined) decided.delete(last.id); else decided.set(last.id, last.before);
      grid.refresh();
    } else load();
    drawFoot();
    announce('Undone');
  }

  function drawFoot() {
    const words = [review.accepted ? `${count(review.accepted)} put in` : '', review.rejected ? `${count(review.rejected)} taken out` : ''].filter(Boolean).join(', ');
    fill(foot, h('p', null, h('strong', null, words || 'No decisions yet'), h('span', { class: 'muted' }, ' · decisions count at the next export')),
      h('div', { class: 'bar-actions' }, button({ icon: 'undo', label: 'Undo last', class: 'small', disabled: !made.length && !review.can_undo, onclick: undo })));
    // Nothing to say before the first decision.
    foot.hidden = !app.canWrite() || (!words && !made.length && !review.can_undo);
  }

  function open(item) {
    openViewer(item, {
      items: () => grid.items, loadMore: grid.complete ? undefined : () => grid.loadMore(), collectionOf: () => run.pool, onmove: () => {},
      onclose: (now, index) => { if (index >= 0) requestAnimationFrame(() => grid.focus(index)); },
      actions: (now) => (!app.canWrite() ? [] : [now.kept
        ? { icon: 'close', label: stateOf(now) === 'rejected' ? 'Taken out' : 'Take it out', pressed: stateOf(now) === 'rejected', run: () => decide('reject', now.id) }
        : { icon: 'check', label: stateOf(now) === 'accepted' ? 'Put in' : 'Put it in', pressed: stateOf(now) === 'accepted', run: () => decide('accept', now.id) }]),
      extra: why, neighbours: false, meaning: false,
    });
  }

  /** Why a picture is in or out: the reason, the other picture it has to do with, and the ledger's sentences. */
  function why(item) {
    const details = h('details', { hidden: true }, h('summary', null, 'In detail'));
    get(path(`/images/${item.id}/explain`)).then((answer) => {
      details.append(...(answer?.sentences ?? []).map((sentence) => h('p', { class: 'small-text' }, sentence)));
      details.hidden = !(answer?.sentences?.length > 0);
    }, () => {});
    const seen = other(item);
    const words = reasonWords(item.rule) || item.reason || `${ruleWords(item.rule)}.`;
    return h('div', { class: 'why' }, h('h3', null, item.kept ? 'Why it is in' : 'Why it is not in'), h('p', null, seen ? words : words.replace(/( The nearest)?:$/, '.').replace('..', '.')), seen, details);
  }

  /** The picture that is the reason, where its collection is here. */
  function other(item) {
    const about = item.because ?? item.seed;
    const collection = about?.set === 'pool' ? run.pool : (app.status?.collections ?? []).find((c) => c.name === about?.set)?.name;
    if (!collection || about.id === item.id) return null;
    const img = h('img', { alt: '' });
    showThumbnail(img, collection, about.id, 84);
    return h('div', { class: 'other' }, img, h('span', null, h('strong', null, fileName(about.path)), h('br'), item.similarity !== undefined && item.similarity !== null ? `similarity ${Number(item.similarity).toFixed(3)}` : ''));
  }

  return { element: page, show, leave() { ask?.abort(); name = ''; } };
}

const entries = (rulesOf) => (Array.isArray(rulesOf) ? rulesOf.map((r) => [r.rule ?? r[0], r.images ?? r.count ?? r[1]]) : Object.entries(rulesOf ?? {}));

const seedWords = (seeds) => (Array.isArray(seeds) && seeds.length ? `examples: ${seeds.map((s) => (typeof s === 'string' ? s : s.name ?? s.set ?? s.collection ?? '')).filter(Boolean).join(', ')}` : '');

/** The table of steps: how many went in, how many came out, and by which rule the others went. */
function accounting(steps) {
  if (!steps.length) return null;
  const most = Math.max(1, ...steps.map((step) => step.images_in));
  return h('div', { class: 'card table-card' }, h('table', { class: 'accounting' },
    h('caption', null, 'How it came about'),
    h('thead', null, h('tr', null, h('th', { scope: 'col' }, 'Step'), h('th', { scope: 'col', class: 'number' }, 'In'), h('th', { scope: 'col', class: 'number' }, 'Out'),
      h('th', { scope: 'col' }, h('span', { class: 'unseen' }, 'Share left')), h('th', { scope: 'col' }, 'Left out because'))),
    h('tbody', null, steps.map((step) => {
      const bar = h('div', { class: 'step-bar' });
      bar.style.width = `${Math.max(1, (100 * step.images_out) / most)}%`;
      return h('tr', null, h('th', { scope: 'row' }, stepWords(step.step)), h('td', { class: 'number' }, count(step.images_in)), h('td', { class: 'number' }, count(step.images_out)),
        h('td', { class: 'bar-cell' }, bar), h('td', null, entries(step.rules).map(([each, n]) => h('span', { class: 'rule' }, `${ruleWords(each)} ${count(n)}`))));
    }))), h('p', { class: 'muted small-text' }, icon('info'), ' Press a picture below to see why it is in or not.'));
}
