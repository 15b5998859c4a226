/** Data sets grown out of a collection from examples: the list of them, and the way to each. */
import { get } from './api.js';
import { jobCard } from './activity.js';
import { button, fill, h } from './dom.js';
import { createNewSet } from './newset.js';
import { createSetPage } from './setpage.js';
import { problemState, state as drawnState } from './states.js';
import { blank, format } from './url.js';
import { count, moment, some } from './words.js';

/** @param {any} app */
export function createSetsPage(app) {
  const body = h('div');
  const page = h('div', { class: 'page wide sets' }, body);
  const set = createSetPage(app);
  const form = createNewSet(app, { onjob: follow });
  let shown = '';

  async function drawList() {
    const head = h('div', { class: 'page-head with-action' }, h('div', null, h('h1', null, 'Data sets'),
      h('p', { class: 'muted' }, 'Give a few examples; Akin gathers the pictures like them, without copies, and gives a reason for every one.')),
    app.canWrite() && app.collection() && button({ icon: 'plus', label: 'New data set', class: 'primary', onclick: () => app.go({ sub: 'new', tab: '' }) }));
    const list = h('div', { class: 'bones' }, h('div', { class: 'bone' }), h('div', { class: 'bone' }));
    const work = h('div');
    for (const job of app.jobs.running('curate')) { const card = jobCard(app); card.draw(job); work.append(card.element); }
    fill(body, head, work, list);
    try {
      const runs = (await get('/runs'))?.runs ?? [];
      if (!list.isConnected) return;
      list.className = 'cards';
      fill(list, runs.length ? runs.map((run) => h('a', { class: 'card run-card', href: format({ ...blank(), page: 'sets', sub: run.name, collection: app.state.collection }) },
        h('h2', null, run.name), h('p', { class: 'muted' }, [run.pool && `from ${run.pool}`, moment(run.created), { running: 'being built', unfinished: 'not finished' }[run.state]].filter(Boolean).join(' · ')),
        h('p', { class: 'run-figure' }, runFigure(run))))
        : drawnState({
          icon: 'stack', title: 'No data sets yet',
          text: 'Select pictures you like in the search and press “Build a data set from these”, or start here with pictures of your own.',
          actions: [h('a', { class: 'button', href: format({ ...blank(), collection: app.state.collection }) }, h('span', null, 'Go to the pictures'))],
        }));
    } catch (problem) {
      if (list.isConnected) { list.className = ''; fill(list, problemState(problem, { retry: drawList })); }
    }
  }

  /** Follows the job that builds a set, and opens it. */
  async function follow(job, name) {
    const card = jobCard(app);
    card.draw(job);
    fill(body, h('div', { class: 'page-head' }, h('h1', null, name), h('p', { class: 'muted' }, 'You can leave this page; it goes on.')), card.element);
    const stop = app.jobs.watch((now) => { if (now.id === job.id) card.draw(now); });
    const last = await app.jobs.start(job).catch(() => null);
    stop();
    if (!card.element.isConnected || app.state.page !== 'sets') return;
    if (last?.state === 'done') app.go({ sub: String(last.result?.run ?? last.result?.name ?? name), tab: '' });
    else body.append(h('div', { class: 'state-actions' }, button({ label: 'Back', onclick: () => form.show(body) })));
  }

  return {
    element: page,
    show(state) {
      const wanted = `${state.sub}/${state.sub === 'new' ? state.tab : ''}/${app.collection()}`;
      if (state.sub && state.sub !== 'new') {
        if (shown !== wanted) { fill(body, set.element); shown = wanted; }
        set.show(state);
        return;
      }
      if (shown === wanted && body.childElementCount) return;
      shown = wanted;
      if (state.sub === 'new') form.show(body);
      else drawList();
    },
    leave() { shown = ''; set.leave(); },
    reload() { shown = ''; this.show(app.state); },
  };
}

/** "240 of 12,000 pictures": what the last step of the accounting left. */
function runFigure(run) {
  const steps = run.accounting ?? [];
  if (!steps.length) return '';
  return `${count(run.kept ?? steps[steps.length - 1].images_out)} of ${some(steps[0].images_in, 'picture')}`;
}
