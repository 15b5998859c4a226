/**
 * A grid of pictures that stays smooth with tens of thousands: only the rows near the window are in
 * the document, and more pages are asked for as the end comes near.
 */
import { h, typing } from './dom.js';
import { createTile } from './tile.js';

const MARGIN = 700; // pixels above and below the window that are drawn too

/**
 * @typedef {{items: any[], next: any}} Page
 * @typedef {{
 *   label: string, smallest?: number,
 *   describe: (item: any) => import('./tile.js').Spec, collectionOf: (item: any) => string,
 *   onopen: (index: number) => void, onaction?: (name: string, item: any, index: number) => void,
 *   onselect?: (item: any, event: Event) => void, onmore?: (items: any[], complete: boolean) => void,
 *   onproblem?: (problem: any) => void
 * }} Options
 */

/** @param {Options} options */
export function createGrid(options) {
  const grid = { onaction: () => {}, ...options };
  const element = h('div', { class: 'grid', role: 'grid', 'aria-label': options.label, 'aria-readonly': 'true' });
  const sentinel = h('div', { class: 'grid-end', 'aria-hidden': 'true' });
  const box = h('div', { class: 'grid-box' }, element, sentinel);

  let items = [];
  let next = null;
  let load = null;
  let loading = false;
  let failed = false;
  let turn = 0;
  let active = 0;
  let layout = { columns: 1, tile: 200, row: 260, gap: 12 };
  /** @type {Map<number, {element: HTMLElement, tiles: any[], short?: boolean}>} by row */
  const rows = new Map();

  function measure() {
    const width = box.clientWidth;
    if (!width) return;
    const rem = Number.parseFloat(getComputedStyle(document.documentElement).fontSize) || 16;
    const narrow = width < 560;
    const gap = narrow ? 10 : 16;
    const smallest = narrow ? 140 : (options.smallest ?? 208);
    const columns = Math.max(narrow ? 2 : 1, Math.floor((width + gap) / (smallest + gap)));
    const tile = Math.floor((width - gap * (columns - 1)) / columns);
    const caption = Math.round(rem * 3.6);
    if (columns !== layout.columns || tile !== layout.tile) {
      for (const row of rows.values()) row.element.remove();
      rows.clear();
    }
    layout = { columns, tile, gap, row: tile + caption + gap };
    element.style.setProperty('--tile', `${tile}px`);
    element.style.setProperty('--gap', `${gap}px`);
    element.style.setProperty('--columns', String(columns));
  }

  const rowCount = () => Math.ceil(items.length / layout.columns);

  function draw() {
    const total = rowCount();
    element.style.height = `${Math.max(0, total * layout.row - layout.gap)}px`;
    element.setAttribute('aria-rowcount', String(next === null ? total : -1));
    element.setAttribute('aria-colcount', String(layout.columns));
    element.hidden = items.length === 0;
    const top = element.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((-top - MARGIN) / layout.row));
    const last = Math.min(total - 1, Math.floor((innerHeight - top + MARGIN) / layout.row));
    const spare = [];
    for (const [at, row] of rows) {
      if (at >= first && at <= last && at < total) continue;
      if (at < total && row.element.contains(document.activeElement)) continue;
      rows.delete(at);
      row.element.remove();
      spare.push(row);
    }
    for (let at = first; at <= last; at += 1) if (!rows.has(at) || rows.get(at).short) drawRow(at, spare);
    if (load && next !== null && !loading && !failed && top + total * layout.row - innerHeight < 2 * MARGIN) more();
  }

  function drawRow(at, spare = []) {
    let row = rows.get(at);
    if (!row) {
      row = spare.pop() ?? { element: h('div', { class: 'grid-row', role: 'row' }), tiles: [] };
      rows.set(at, row);
      row.element.style.transform = `translateY(${at * layout.row}px)`;
      row.element.setAttribute('aria-rowindex', String(at + 1));
      const after = [...rows.keys()].filter((k) => k > at).sort((a, b) => a - b)[0];
      element.insertBefore(row.element, after === undefined ? null : rows.get(after).element);
    }
    const wanted = Math.min(layout.columns, items.length - at * layout.columns);
    row.short = wanted < layout.columns; // to be filled when the next page comes
    while (row.tiles.length > wanted) row.tiles.pop().element.remove();
    while (row.tiles.length < wanted) {
      const tile = createTile(grid);
      row.tiles.push(tile);
      row.element.append(tile.element);
    }
    row.tiles.forEach((tile, column) => {
      const index = at * layout.columns + column;
      tile.set(items[index], index, layout.tile, column);
      tile.setActive(index === active);
    });
  }

  async function more() {
    const mine = turn;
    loading = true;
    sentinel.classList.add('busy');
    try {
      const page = await load(next);
      if (mine !== turn) return;
      items = items.concat(page.items);
      next = page.next ?? null;
      grid.onmore?.(items, next === null);
    } catch (error) {
      if (mine !== turn || error?.name === 'AbortError') return;
      failed = true;
      grid.onproblem?.(error);
    } finally {
      if (mine === turn) {
        loading = false;
        sentinel.classList.toggle('busy', false);
        draw();
      }
    }
  }

  let asked = false;
  const soon = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; if (element.isConnected) draw(); });
  };
  addEventListener('scroll', soon, { passive: true });
  new ResizeObserver(() => { measure(); soon(); }).observe(box);

  const tileAt = (index) => rows.get(Math.floor(index / layout.columns))?.tiles[index % layout.columns];

  function focus(index) {
    if (!items.length) return false;
    const old = tileAt(active);
    active = Math.max(0, Math.min(items.length - 1, index));
    old?.setActive(false);
    const at = Math.floor(active / layout.columns);
    const header = document.getElementById('header')?.offsetHeight ?? 0;
    const top = element.getBoundingClientRect().top + at * layout.row;
    // Near the edge of the window, or far away: brought into it before it is drawn.
    if (top < header + 8) scrollBy({ top: top - header - 16, behavior: 'instant' });
    else if (top + layout.row > innerHeight) scrollBy({ top: top + layout.row - innerHeight + 16, behavior: 'instant' });
    if (!rows.has(at)) drawRow(at);
    draw();
    const tile = tileAt(active);
    tile?.setActive(true);
    tile?.picture.focus({ preventScroll: true });
    return true;
  }

  element.addEventListener('focusin', (event) => {
    const tile = event.target.closest?.('.tile');
    if (!tile) return;
    for (const [at, row] of rows) {
      const column = row.tiles.findIndex((each) => each.element === tile);
      if (column < 0) continue;
      const index = at * layout.columns + column;
      if (index !== active) {
        tileAt(active)?.setActive(false);
        active = index;
        row.tiles[column].setActive(true);
      }
    }
  });

  element.addEventListener('keydown', (event) => {
    if (event.altKey || event.metaKey || typing(event.target)) return;
    const page = Math.max(1, Math.floor((innerHeight - 140) / layout.row)) * layout.columns;
    const inRow = active % layout.columns;
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -layout.columns, ArrowDown: layout.columns, PageUp: -page, PageDown: page,
      Home: event.ctrlKey ? -active : -inRow, End: event.ctrlKey ? items.length - 1 - active : layout.columns - 1 - inRow,
    };
    if (event.key in steps) {
      event.preventDefault();
      const to = active + steps[event.key];
      if (to < 0 && event.key === 'ArrowUp') return;
      focus(to);
    } else if (!event.ctrlKey && !event.shiftKey && tileAt(active)?.press(event.key)) {
      event.preventDefault();
    } else if (event.key === '+' && tileAt(active)?.press('+')) {
      event.preventDefault();
    }
  });

  return {
    element: box,
    get items() { return items; },
    get complete() { return next === null; },
    get active() { return active; },
    /**
     * Shows a new list from its first page on; `loader` gives the pages after it.
     * @param {Page} page
     * @param {(next: any) => Promise<Page>} loader
     */
    replace(page, loader) {
      turn += 1;
      items = page.items;
      next = page.next ?? null;
      load = loader;
      loading = false;
      failed = false;
      active = 0;
      box.classList.remove('stale');
      sentinel.classList.remove('busy');
      measure();
      for (const at of [...rows.keys()]) if (at >= rowCount()) { rows.get(at).element.remove(); rows.delete(at); }
      for (const at of rows.keys()) drawRow(at);
      draw();
      grid.onmore?.(items, next === null);
    },
    /** Shows grey places while the first page is on its way; with pictures there, dims those. */
    wait() {
      turn += 1;
      loading = false;
      element.setAttribute('aria-busy', 'true');
      if (items.length) box.classList.add('stale');
      else sentinel.classList.add('busy', 'first');
    },
    ready() {
      element.removeAttribute('aria-busy');
      box.classList.remove('stale');
      sentinel.classList.remove('first', 'busy');
    },
    clear() {
      this.replace({ items: [], next: null }, null);
    },
    /** Draws marks and words of the tiles in view again. */
    refresh() { for (const row of rows.values()) for (const tile of row.tiles) tile.update(); },
    /** Takes pictures out of the list. */
    drop(ids) {
      items = items.filter((item) => !ids.has(item.id));
      for (const row of rows.values()) row.element.remove();
      rows.clear();
      draw();
    },
    /** Goes on after a page that could not be had. */
    retry() { failed = false; draw(); },
    /** Brings more pictures in, as the viewer nears the end. */
    async loadMore() { if (load && next !== null && !loading) await more(); },
    focus,
    focusActive: () => focus(active),
  };
}
