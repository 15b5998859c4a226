/** Space that removed pictures still take, and giving it back. */
import { ended, get, post, within } from './api.js';
import { button, fill, h, toast } from './dom.js';
import { bytes, some, wordsOf } from './words.js';

/**
 * A card that is there when there is something to give back, and whoever looks may do so.
 * @param {any} app
 */
export function createSpace(app) {
  const element = h('section', { class: 'card space', 'aria-labelledby': 'space-title', hidden: true });
  let asked = '';

  async function draw(always = false) {
    const name = app.collection();
    const info = app.info();
    const state = `${name} ${info?.sequence}`;
    if (!app.isAdmin() || !name) { element.hidden = true; return; }
    if (!always && state === asked) return;
    asked = state;
    let stats;
    try { stats = await get(within(name, '/stats')); } catch { element.hidden = true; return; }
    if (state !== asked) return;
    const dead = stats.dead_rows;
    const busy = app.jobs.running('compact').some((job) => job.collection === name);
    element.hidden = dead === 0 || busy;
    if (element.hidden) return;
    const size = Math.round((stats.bytes.vectors * dead) / Math.max(1, stats.rows));
    const start = button({ label: 'Give space back', onclick: () => run(name, start) });
    fill(element, h('div', null, h('h2', { id: 'space-title' }, 'Space'),
      h('p', { class: 'muted' }, `What Akin kept about ${some(dead, 'picture')} taken out of “${name}” or replaced still takes about ${bytes(size)}. Your files are not touched. Searching goes on meanwhile; adding and removing waits.`)), start);
  }

  async function run(name, start) {
    start.disabled = true;
    try {
      await app.jobs.start(await post(within(name, '/compact')));
    } catch (problem) { toast(wordsOf(problem), { kind: 'error' }); }
    draw(true);
  }

  app.jobs.watch((job) => { if (job.kind === 'compact' && element.isConnected && (ended(job) || !element.hidden)) draw(true); });
  return { element, draw };
}
