/** One picture of a grid: the picture, its words, and what can be done with it. */
import { button, h, icon } from './dom.js';
import { showThumbnail } from './images.js';
import { fileName, likeness, percentile } from './words.js';

/** The type under which a dragged tile carries its picture's id. */
export const DRAGGED = 'application/x-akin-picture';

/**
 * What a grid shows of a picture and lets people do with it.
 * @typedef {{
 *   label?: string, sub?: string, badge?: string, tone?: string, draggable?: boolean,
 *   actions?: {name: string, icon: string, label: string, pressed?: boolean, corner?: boolean, key?: string}[],
 *   selected?: boolean|null
 * }} Spec
 */

/**
 * @param {{describe: (item: any) => Spec, collectionOf: (item: any) => string, onopen: (index: number) => void,
 *   onaction: (name: string, item: any, index: number) => void, onselect?: (item: any, event: Event) => void}} grid
 */
export function createTile(grid) {
  let item = null;
  let index = 0;
  let width = 0;
  let active = false;
  let shownKey = '';
  const img = h('img', { alt: '', draggable: false, class: 'loading' });
  const tick = h('span', { class: 'tick', 'aria-hidden': 'true' }, icon('check'));
  const badge = h('span', { class: 'badge' });
  const picture = h('button', {
    type: 'button', class: 'picture',
    onclick: (event) => {
      if (grid.describe(item).selected != null) grid.onselect?.(item, event);
      else grid.onopen(index);
    },
  }, img, tick, badge);
  const corner = h('div', { class: 'corner' });
  const label = h('span', { class: 'label' });
  const sub = h('span', { class: 'sub' });
  const marks = h('div', { class: 'marks' });
  const element = h('div', { class: 'tile', role: 'gridcell' }, picture, corner,
    h('div', { class: 'caption' }, h('div', { class: 'words' }, label, sub), marks));
  element.addEventListener('dragstart', (event) => {
    event.dataTransfer.setData(DRAGGED, String(item.id));
    event.dataTransfer.setData('text/plain', item.path ?? String(item.id));
    event.dataTransfer.effectAllowed = 'copy';
    event.dataTransfer.setDragImage(img, img.clientWidth / 2, img.clientHeight / 2);
  });

  const act = (name) => grid.onaction(name, item, index);
  let drawn = '';
  function drawActions(actions) {
    const wanted = JSON.stringify(actions);
    if (drawn === wanted) return;
    drawn = wanted;
    // Buttons are kept where they are the same ones, or a press would lose the focus.
    for (const [place, list] of [[corner, actions.filter((a) => a.corner)], [marks, actions.filter((a) => !a.corner)]]) {
      const old = [...place.children];
      if (old.length === list.length && list.every((a, i) => old[i].dataset.name === a.name)) {
        list.forEach((a, i) => {
          if (a.pressed !== undefined) old[i].setAttribute('aria-pressed', String(a.pressed));
          old[i].setAttribute('aria-label', `${a.label}: ${fileName(item.path)}`);
        });
      } else {
        place.replaceChildren(...list.map((a) => button({
          icon: a.icon, label: a.label, iconOnly: true, class: `mark ${a.name}`, dataset: { name: a.name },
          'aria-label': `${a.label}: ${fileName(item.path)}`,
          ...(a.pressed !== undefined ? { 'aria-pressed': String(a.pressed) } : {}), onclick: () => act(a.name),
        })));
      }
    }
  }

  /** Draws what may have changed: marks, selection, words. */
  function update() {
    if (!item) return;
    const spec = grid.describe(item);
    label.textContent = spec.label ?? '';
    sub.textContent = spec.sub ?? '';
    badge.textContent = spec.badge ?? '';
    badge.hidden = !spec.badge;
    element.dataset.tone = spec.tone ?? '';
    element.classList.toggle('selecting', spec.selected != null);
    element.classList.toggle('selected', !!spec.selected);
    if (spec.selected != null) picture.setAttribute('aria-pressed', String(!!spec.selected));
    else picture.removeAttribute('aria-pressed');
    sub.title = sub.textContent.startsWith('closer') ? `${sub.textContent} of all pairs of pictures here` : sub.textContent;
    picture.setAttribute('aria-label', [fileName(item.path), spec.label, spec.sub, spec.badge].filter(Boolean).join(', '));
    element.draggable = spec.draggable ?? false;
    drawActions(spec.actions ?? []);
    for (const each of element.querySelectorAll('button')) each.tabIndex = active ? 0 : -1;
  }

  return {
    element,
    picture,
    update,
    /** Shows another picture here. */
    set(next, at, pixels, column) {
      const changed = next.id !== item?.id || Math.abs(pixels - width) > 40;
      item = next;
      index = at;
      element.dataset.id = String(item.id);
      element.setAttribute('aria-colindex', String(column + 1));
      const wanted = `${grid.collectionOf(item)}/${item.id}`;
      if (changed || wanted !== shownKey) {
        width = pixels;
        shownKey = wanted;
        showThumbnail(img, grid.collectionOf(item), item.id, pixels);
      }
      update();
    },
    setActive(yes) {
      if (active === yes) return;
      active = yes;
      for (const each of element.querySelectorAll('button')) each.tabIndex = yes ? 0 : -1;
    },
    /** Runs the action bound to a key; answers whether there was one. */
    press(pressed) {
      const found = (grid.describe(item).actions ?? []).find((a) => a.key === pressed);
      if (found) act(found.name);
      return !!found;
    },
  };
}

/**
 * The words under a search hit.
 * @param {import('./api.js').Hit} hit
 * @param {boolean} numbers whether the person wants figures
 */
export function hitWords(hit, numbers) {
  if (hit.similarity === undefined) return { label: fileName(hit.path), sub: hit.width ? `${hit.width} × ${hit.height}` : '' };
  const label = likeness(hit);
  const number = `similarity ${hit.similarity.toFixed(4)}`;
  // "Unrelated, closer than 80 %" would read as a contradiction: four of five pairs have nothing in common.
  if (!numbers && label === 'Unrelated') return { label, sub: '' };
  return { label, sub: (!numbers && percentile(hit.percentile)) || number };
}
