/** The bar that comes up while pictures are being selected. */
import { button, fill, h } from './dom.js';
import { selection } from './selection.js';
import { some } from './words.js';

/**
 * @param {any} app
 * @param {() => any[]} items the pictures in view, for "select all"
 */
export function selectionBar(app, items) {
  const element = h('div', { class: 'selection-bar', role: 'region', 'aria-label': 'Selected pictures', hidden: true });
  const words = h('strong', { role: 'status' });
  const all = button({ label: 'Select all shown', class: 'small', onclick: () => selection.add(app.collection(), items().map((item) => item.id)) });
  const none = button({ label: 'Select none', class: 'small', onclick: () => selection.clear(app.collection()) });
  const build = button({ icon: 'stack', label: 'Build a data set from these', class: 'primary small', onclick: () => app.go({ page: 'sets', sub: 'new', view: null, tab: 'selected' }) });
  const done = button({ icon: 'close', label: 'Stop selecting', iconOnly: true, class: 'quiet', onclick: () => { selection.on = false; selection.clear(app.collection()); } });
  fill(element, words, h('div', { class: 'bar-actions' }, all, none, build), done);
  return {
    element,
    draw() {
      const n = selection.size(app.collection());
      element.hidden = !selection.on;
      document.body.classList.toggle('with-bar', selection.on);
      words.textContent = n ? `${some(n, 'picture')} selected` : 'Press pictures to select them';
      none.disabled = n === 0;
      build.disabled = n === 0;
      build.hidden = !app.canWrite();
    },
  };
}
