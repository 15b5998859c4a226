/** Duplicates: looking for them, and deciding group by group what stays. Nothing goes before it is applied. */
import { ended, get, post, within } from './api.js';
import { jobCard } from './activity.js';
import { openCompare } from './compare.js';
import { announce, button, dialog, fill, h, toast, typing } from './dom.js';
import { createGroupView } from './group.js';
import { showThumbnail } from './images.js';
import { RULES, choose } from './keep.js';
import { problemState, state as drawnState } from './states.js';
import { bytes, count, duplicateKind, moment, some, wordsOf } from './words.js';

/** Kinds that are duplicates, or may be. */
const DUPLICATES = ['same_file', 'edited', 'similar'];

/** @typedef {{id: any, kind: string, keep: number, members: any[], decided: string, going?: Set<number>}} Group */

/** @param {any} app */
export function createDuplicatesPage(app) {
  const body = h('div');
  const page = h('div', { class: 'page wide duplicates' }, body);
  let report = '';
  /** @type {Group[]} */
  let groups = [];
  let next = null;
  let at = 0;
  let kind = '';
  let totals = null;
  /** What somebody marked by hand to go, by group: it outlives a look at another tab. @type {Map<any, Set<number>>} */
  let marked = new Map();
  /** Ids of groups in the order they were decided, for undo. */
  let decidedInOrder = [];
  let ask = null;
  let card = null;

  const path = (rest = '') => within(app.collection(), `/dedup/${encodeURIComponent(report)}${rest}`);

  // ---- Looking for them

  function drawStart() {
    const keep = h('select', { class: 'select', id: 'keep-rule' }, Object.entries(RULES).map(([value, [name]]) => h('option', { value }, name)));
    const look = h('input', { type: 'checkbox', class: 'switch', checked: true });
    const threshold = h('input', { type: 'number', class: 'input short', min: 0, max: 1, step: 0.01, placeholder: 'measured', id: 'threshold' });
    const running = app.jobs.running('dedup').find((job) => job.collection === app.collection());
    const past = app.jobs.list().filter((job) => job.kind === 'dedup' && job.state === 'done' && job.collection === app.collection() && job.result?.report !== undefined);
    const progress = h('div');
    card = running ? jobCard(app) : null;
    if (card) { card.draw(running); progress.append(card.element); }
    const form = h('form', {
      class: 'card start-form',
      onsubmit: async (event) => {
        event.preventDefault();
        const request = { keep: keep.value, verify: look.checked };
        if (threshold.value) request.threshold = Number(threshold.value);
        try { run(await post(within(app.collection(), '/dedup'), request)); } catch (problem) { fill(progress, problemState(problem)); }
      },
    },
    h('h2', null, 'Look for duplicates'),
    h('p', { class: 'muted' }, 'Finds the same file twice, edited copies (cropped, resized, mirrored, framed) and pictures that are nearly the same. Nothing is removed: you decide, group by group.'),
    h('div', { class: 'form-row' }, h('label', { class: 'field', for: 'keep-rule' }, 'Suggest to keep', keep),
      h('label', { class: 'check' }, look, h('span', null, 'Look at both pictures of each pair (slower, far fewer mistakes)'))),
    h('details', null, h('summary', null, 'More'), h('label', { class: 'field', for: 'threshold' }, 'Least similarity of a pair, 0 to 1 (empty: what was measured for the model)', threshold)),
    h('div', { class: 'form-foot' }, h('button', { type: 'submit', class: 'button primary', disabled: !!running || !app.canWrite() }, h('span', null, 'Look for duplicates'))),
    !app.canWrite() && h('p', { class: 'muted small-text' }, 'Your key only allows looking.'));
    fill(body, h('div', { class: 'page-head' }, h('h1', null, 'Duplicates'), h('p', { class: 'muted' }, 'Copies in one place, side by side, and nothing lost by mistake.')),
      progress, form,
      past.length > 0 && h('section', { class: 'card' }, h('h2', null, 'Earlier looks'), h('ul', { class: 'plain-list' }, past.map((job) => h('li', null,
        h('button', { type: 'button', class: 'link', onclick: () => app.go({ sub: String(job.result.report) }) }, moment(job.ended ?? job.created) || `Look ${job.result.report}`),
        job.result.groups !== undefined && h('span', { class: 'muted' }, some(job.result.groups, 'group')))))));
  }

  async function run(job) {
    const end = app.jobs.start(job);
    drawStart();
    const last = await end.catch(() => null);
    if (last?.state === 'done' && app.state.page === 'duplicates' && !app.state.sub) app.go({ sub: String(last.result.report) });
    else if (last && app.state.page === 'duplicates' && !app.state.sub) { drawStart(); if (last.problem) toast(last.problem.detail ?? 'That failed.', { kind: 'error' }); }
  }

  app.jobs.watch((job) => { if (card && job.kind === 'dedup' && page.isConnected && !ended(job)) card.draw(job); });

  // ---- Deciding

  const index = h('div', { class: 'group-index', role: 'listbox', 'aria-label': 'Groups of duplicates', tabIndex: -1 });
  const furtherGroups = button({ label: 'More groups', class: 'small', onclick: () => more()?.catch(() => {}) });
  const side = h('div', { class: 'group-side' }, index, furtherGroups);
  const view = createGroupView({
    collection: () => app.collection(), canWrite: () => app.canWrite(),
    onchange: () => { marked.set(groups[at].id, groups[at].going); drawFoot(); },
    ondecide: (action) => decide(groups[at], action),
    onmove: (by) => show(at + by),
    oncompare: (group) => openCompare(app.collection(), group.members, group.keep),
  });
  const kinds = h('div', { class: 'tabs', role: 'group', 'aria-label': 'Kinds of duplicates' });
  const rule = h('select', { class: 'select', 'aria-label': 'Which one to keep', onchange: () => { applyRule(rule.value); } },
    h('option', { value: '' }, 'Keep as suggested'), Object.entries(RULES).map(([value, [name]]) => h('option', { value }, name)));
  const foot = h('div', { class: 'decision-bar', role: 'region', 'aria-label': 'Decisions' });

  async function load() {
    ask?.abort();
    ask = new AbortController();
    const { signal } = ask;
    fill(body, h('div', { class: 'page-head' }, h('h1', null, 'Duplicates')), h('div', { class: 'bones' }, Array.from({ length: 3 }, () => h('div', { class: 'bone tall' }))));
    try {
      const answer = await get(path(), { limit: 100, kind: asked() }, signal);
      totals = answer.totals;
      groups = [];
      take(answer);
      at = Math.max(0, groups.findIndex((group) => group.decided === 'pending'));
      drawReview();
    } catch (problem) {
      if (problem?.name !== 'AbortError') fill(body, h('div', { class: 'page-head' }, h('h1', null, 'Duplicates')), problemState(problem, { retry: load, more: [button({ label: 'All looks', onclick: () => app.go({ sub: '' }) })] }));
    }
  }

  /**
   * The kinds of this tab, as the server is asked for them. Pictures of one subject are no duplicates
   * and may be thousands: they have a tab of their own and are not among the others.
   */
  const asked = () => kind || DUPLICATES.join(',');

  /** Takes a further page of groups in. */
  function take(answer) {
    groups = [...groups, ...answer.groups.map(prepared)];
    next = answer.next_cursor ?? null;
  }

  const sum = (by, which) => (which ? by[which] ?? 0 : DUPLICATES.reduce((n, each) => n + (by[each] ?? 0), 0));
  /** How many groups a tab has, and how many of them are not decided yet. */
  const groupCount = (which) => sum(totals.by_kind, which);
  const pendingCount = (which) => sum(totals.pending_by_kind, which);

  /** Notes in the figures what was decided, as the server does. */
  function tally(group, action) {
    const was = group.decided;
    group.decided = { keep: 'kept', not_duplicate: 'not_duplicate', undo: 'pending' }[action];
    if ((was === 'pending') !== (group.decided === 'pending')) totals.pending_by_kind[group.kind] += was === 'pending' ? -1 : 1;
    const sign = Number(group.decided === 'kept') - Number(was === 'kept');
    for (const member of group.members.filter((m) => group.going.has(m.id))) {
      totals.going += sign;
      totals.going_bytes += sign * (member.bytes ?? 0);
    }
  }

  /** A group as it came, the one to keep first. */
  function prepared(group) {
    const members = [...group.members].sort((a, b) => Number(b.id === group.keep) - Number(a.id === group.keep) || (b.similarity ?? 0) - (a.similarity ?? 0));
    // Different pictures of one subject stay unless somebody says otherwise.
    const kept = rule.value ? choose(rule.value, members) : group.keep;
    const suggested = group.kind === 'same_subject' && !rule.value ? [] : members.filter((m) => m.id !== kept).map((m) => m.id);
    const going = group.decided === 'pending' ? marked.get(group.id) ?? new Set(suggested) : new Set(group.remove ?? suggested);
    return { ...group, members, going };
  }

  function drawReview() {
    if (!groups.length) {
      const others = groupCount('same_subject');
      fill(body, h('div', { class: 'page-head' }, h('h1', null, 'Duplicates')), (kind || others > 0) && drawKinds(),
        drawnState({ icon: 'check', title: kind ? 'None of that kind' : 'No duplicates', text: kind ? '' : others ? 'There are only different pictures of the same subject.' : 'Every picture here is one of its kind.', actions: [button({ label: 'Look again', onclick: () => app.go({ sub: '' }) })] }));
      return;
    }
    fill(body,
      h('div', { class: 'page-head review-head' }, h('h1', null, 'Duplicates'), drawKinds(), h('div', { class: 'review-tools' }, rule,
        button({ label: 'Look again', class: 'quiet small', onclick: () => app.go({ sub: '' }) }))),
      h('div', { class: 'review' }, side, view.element), foot);
    drawIndex();
    show(at, false);
  }

  function drawKinds() {
    const by = Object.entries(totals?.by_kind ?? {});
    const shown = by.filter(([k]) => k !== 'same_subject');
    return fill(kinds, [['', 'All duplicates', groupCount('')], ...(shown.length > 1 ? shown : []), ...by.filter(([k]) => k === 'same_subject')].map(([k, name, n]) => (n === undefined ? [k, duplicateKind(k), name] : [k, name, n])).map(([value, name, n]) => h('button', {
      type: 'button', class: 'tab', 'aria-pressed': String(kind === value), onclick: () => { turn(value); },
    }, name, h('span', { class: 'muted' }, ` ${count(n)}`))));
  }

  /** Another tab. A rule for copies says nothing about pictures that only show the same. */
  function turn(value) {
    if ((kind === 'same_subject') !== (value === 'same_subject')) rule.value = '';
    kind = value;
    load();
  }

  const decidedWords = (group) => ({ kept: 'decided', not_duplicate: 'not duplicates', removed: 'taken out' })[group.decided] ?? '';

  function drawIndex() {
    fill(index, groups.map((group, i) => {
      const img = h('img', { alt: '' });
      showThumbnail(img, app.collection(), group.members[0].id, 64);
      return h('button', {
        type: 'button', class: `group-entry ${group.decided}`, role: 'option', 'aria-selected': String(i === at), tabIndex: i === at ? 0 : -1, onclick: () => show(i),
      }, img, h('span', { class: 'grow' }, h('strong', null, duplicateKind(group.kind)), h('span', { class: 'muted' }, `${count(group.members.length)} pictures${decidedWords(group) ? ` · ${decidedWords(group)}` : ''}`)));
    }));
    furtherGroups.hidden = next === null;
  }

  /** One page more; asked for once, however often. */
  let coming = null;
  function more() {
    if (next === null) return null;
    const { signal } = ask;
    coming ??= get(path(), { limit: 100, kind: asked(), cursor: next }, signal)
      .then((answer) => { if (!signal.aborted) { take(answer); drawIndex(); } })
      .catch((problem) => { if (problem?.name !== 'AbortError') { toast(wordsOf(problem), { kind: 'error' }); throw problem; } })
      .finally(() => { coming = null; });
    return coming;
  }

  function show(i, tell = true) {
    at = Math.max(0, Math.min(groups.length - 1, i));
    const group = groups[at];
    const entries = index.querySelectorAll('.group-entry');
    entries.forEach((entry, n) => {
      entry.setAttribute('aria-selected', String(n === at));
      entry.tabIndex = n === at ? 0 : -1;
    });
    if (index.contains(document.activeElement)) entries[at]?.focus();
    entries[at]?.scrollIntoView({ block: 'nearest' });
    view.show(group, at, groupCount(kind));
    drawFoot();
    if (tell) announce(`Group ${at + 1}: ${duplicateKind(group.kind)}, ${group.members.length} pictures`);
    if (at > groups.length - 10) more()?.catch(() => {});
  }

  /** Marks what stays by a rule, in every group that is not decided yet; those that come later too. */
  function applyRule(name) {
    marked = new Map();
    for (const group of groups) {
      if (group.decided !== 'pending') continue;
      const kept = name ? choose(name, group.members) : group.keep;
      const stays = (m) => m.id === kept || (!name && group.kind === 'same_subject');
      group.going = new Set(group.members.filter((m) => !stays(m)).map((m) => m.id));
    }
    view.show(groups[at], at, groupCount(kind));
    announce(name ? `Now keeps: ${RULES[name][0]}` : 'Keeps as suggested');
  }

  /** Writes a decision down; the next undecided group comes up. */
  async function decide(group, action) {
    if (action === 'not_duplicate' && group.kind === 'same_file') { toast('These are the same file, so they are duplicates. To keep them all, mark them as staying.'); return; }
    if (!app.canWrite()) { toast('Your key only allows looking.', { kind: 'error' }); return; }
    const remove = [...group.going];
    const keep = group.members.map((m) => m.id).filter((id) => !group.going.has(id));
    if (action === 'keep' && keep.length === 0) { toast('At least one picture of a group has to stay.', { kind: 'error' }); return; }
    const sent = action === 'keep' ? { group: group.id, action, keep, remove } : { group: group.id, action };
    try {
      await post(path('/decisions'), sent);
    } catch (problem) { toast(wordsOf(problem), { kind: 'error' }); return; }
    const where = groups.indexOf(group);
    tally(group, action);
    if (action === 'undo') {
      decidedInOrder = decidedInOrder.filter((id) => id !== group.id);
      drawIndex();
      show(where);
      announce('Undone');
      return;
    }
    decidedInOrder = [...decidedInOrder.filter((id) => id !== group.id), group.id];
    drawIndex();
    const open = groups.findIndex((each, i) => i > where && each.decided === 'pending');
    show(open >= 0 ? open : Math.max(0, groups.findIndex((each) => each.decided === 'pending')));
    announce(action === 'keep' ? `Decided: ${keep.length} stay, ${remove.length} go` : 'Noted: not duplicates');
  }

  /** Decides what is left on this tab as it is marked; each can be taken back as any other. */
  async function decideRest() {
    let done = 0;
    try {
      while (next !== null) await more();
      const rest = groups.filter((group) => group.decided === 'pending' && group.members.length > group.going.size);
      for (const group of rest) {
        const remove = [...group.going];
        await post(path('/decisions'), { group: group.id, action: 'keep', keep: group.members.map((m) => m.id).filter((id) => !group.going.has(id)), remove });
        tally(group, 'keep');
        decidedInOrder.push(group.id);
        done += 1;
      }
    } catch (problem) { toast(wordsOf(problem), { kind: 'error' }); }
    drawIndex();
    show(at);
    toast(`${some(done, 'group')} decided as marked. Nothing goes before the dry run is confirmed.`);
  }

  function undo() {
    const last = decidedInOrder[decidedInOrder.length - 1];
    const group = groups.find((each) => each.id === last) ?? [...groups].reverse().find((each) => ['kept', 'not_duplicate'].includes(each.decided));
    if (group) decide(group, 'undo');
  }

  function drawFoot() {
    const pending = pendingCount(kind);
    const { going, going_bytes: size } = totals;
    fill(foot, h('p', null, h('strong', null, `${count(groupCount(kind) - pending)} of ${count(groupCount(kind))} decided`),
      h('span', { class: 'muted' }, going ? ` · ${some(going, 'picture')} to go${size ? `, ${bytes(size)}` : ''}` : ' · nothing to go yet')),
    h('div', { class: 'bar-actions' },
      button({ label: 'Decide the rest as marked', class: 'small rest', disabled: pending === 0 || !app.canWrite(), onclick: decideRest }),
      button({ icon: 'undo', label: 'Undo last', class: 'small', disabled: !groups.some((g) => ['kept', 'not_duplicate'].includes(g.decided)), onclick: undo }),
      button({ label: 'Dry run', class: 'primary small', disabled: going === 0 || !app.canWrite(), onclick: dryRun })));
  }

  /** Shows what would go; only then can it be done. */
  async function dryRun() {
    let plan;
    try { plan = await post(path('/apply'), { dry_run: true }); } catch (problem) { toast(wordsOf(problem), { kind: 'error' }); return; }
    const ids = plan.would_remove ?? [];
    const apply = button({
      label: `Take ${some(ids.length, 'picture')} out`, class: 'danger', disabled: ids.length === 0,
      onclick: async () => {
        apply.disabled = true;
        try {
          const done = await post(path('/apply'), { dry_run: false });
          box.finish();
          toast(`${some(done.removed ?? ids.length, 'picture')} taken out of the collection. The files are where they were.${app.isAdmin() ? ' Activity can give back the space of what Akin kept about them.' : ''}`);
          app.refresh().catch(() => {});
          load();
        } catch (problem) { apply.disabled = false; toast(wordsOf(problem), { kind: 'error' }); }
      },
    });
    const box = dialog({
      title: 'Dry run: what would go', class: 'wide',
      body: [h('p', null, ids.length ? `${some(ids.length, 'picture')}${plan.bytes ? ` (${bytes(plan.bytes)} of files)` : ''} would leave the collection. Files are never deleted; reading the folder again brings pictures back.` : 'Nothing would go.'),
        h('ul', { class: 'thumbs' }, ids.slice(0, 200).map((id) => { const img = h('img', { alt: `Picture ${id}` }); showThumbnail(img, app.collection(), id, 96); return h('li', null, img); })),
        ids.length > 200 && h('p', { class: 'muted' }, `and ${count(ids.length - 200)} more`)],
      foot: [button({ label: 'Not yet', onclick: () => box.finish() }), apply],
    });
  }

  addEventListener('keydown', (/** @type {any} */ event) => {
    if (!page.isConnected || !report || !groups.length || document.querySelector('dialog[open]') || typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const pressed = event.key.toLowerCase();
    if (pressed === 'j') show(at + 1);
    else if (pressed === 'k') show(at - 1);
    else if (pressed === 'n') decide(groups[at], groups[at].decided === 'not_duplicate' ? 'undo' : 'not_duplicate');
    else if (pressed === 'c') openCompare(app.collection(), groups[at].members, groups[at].keep);
    else if (pressed === 'z') undo();
    else if (pressed === 'enter' && !event.target.closest?.('button, a, summary, select')) decide(groups[at], 'keep');
    else if (/^[1-9]$/.test(pressed) && groups[at].members[Number(pressed) - 1]) view.keepOnly(groups[at].members[Number(pressed) - 1].id);
    else if ((event.key === 'ArrowDown' || event.key === 'ArrowUp') && index.contains(event.target)) show(at + (event.key === 'ArrowDown' ? 1 : -1));
    else return;
    event.preventDefault();
  });

  return {
    element: page,
    show(state) {
      const wanted = state.sub ? `${app.collection()}/${state.sub}` : '';
      if (!state.sub) { report = ''; groups = []; page.dataset.shown = ''; if (app.collection()) drawStart(); else fill(body, app.emptyState()); return; }
      if (page.dataset.shown === wanted) return;
      page.dataset.shown = wanted;
      report = state.sub;
      kind = '';
      rule.value = '';
      marked = new Map();
      decidedInOrder = [];
      load();
    },
    reload() { if (report) load(); else drawStart(); },
    leave() { ask?.abort(); page.dataset.shown = ''; },
  };
}
