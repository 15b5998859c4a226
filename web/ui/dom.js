/**
 * Building pieces of the page. Text always goes in as text nodes, never as markup.
 */
import { paths } from './icons.js';

/**
 * An element with properties and children. `on*` functions become listeners, names with a dash and
 * `role`, `for`, `list` attributes, `class` the class, `dataset` data attributes, the rest properties.
 * @param {string} tag
 * @param {Record<string, any>|null} [props]
 * @param {...(Node|string|number|null|undefined|false|Array<any>)} children
 * @returns {any} the element
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null) continue;
    if (name.startsWith('on') && typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (name === 'class') element.className = value;
    else if (name === 'dataset') Object.assign(element.dataset, value);
    else if (name.includes('-') || ['role', 'for', 'list', 'colspan'].includes(name)) element.setAttribute(name, String(value));
    else element[name] = value;
  }
  add(element, children);
  return element;
}

/** Appends children, skipping nothing-values and flattening lists. */
function add(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child instanceof Node ? child : String(child));
  }
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

/**
 * A line icon, hidden from screen readers.
 * @param {string} name one of icons.js
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  for (const [key, value] of Object.entries({ viewBox: '0 0 24 24', 'aria-hidden': 'true', class: 'icon' })) svg.setAttribute(key, value);
  for (const d of paths[name] ?? []) {
    const path = document.createElementNS(SVG, 'path');
    path.setAttribute('d', d);
    svg.append(path);
  }
  return svg;
}

/** The logo, in the colours of the page. */
export function logo() {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 32 32');
  svg.setAttribute('class', 'logo');
  svg.setAttribute('aria-hidden', 'true');
  /** @type {[string, Record<string, any>][]} */
  const parts = [
    ['rect', { x: 3, y: 3, width: 18, height: 18, rx: 5, class: 'logo-line' }],
    ['rect', { x: 11, y: 11, width: 18, height: 18, rx: 5, class: 'logo-line' }],
    ['path', { d: 'M14 11h7v5a5 5 0 0 1-5 5h-5v-5a5 5 0 0 1 5-5z', class: 'logo-fill' }],
  ];
  for (const [tag, attributes] of parts) {
    const part = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, String(value));
    svg.append(part);
  }
  return svg;
}

/**
 * A button with an icon and, unless `iconOnly`, its words.
 * @param {{icon?: string, label: string, iconOnly?: boolean, class?: string, onclick?: (e: any) => void} & Record<string, any>} options
 */
export function button({ icon: name, label, iconOnly, class: kind = '', ...rest }) {
  return h('button', {
    type: 'button', class: `button ${iconOnly ? 'icon-only' : ''} ${kind}`.trim(),
    ...(iconOnly ? { 'aria-label': label, title: label } : {}), ...rest,
  }, name && icon(name), !iconOnly && h('span', null, label));
}

let pending = 0;
/** Says something to screen readers; only the last of several quick messages. */
export function announce(text) {
  clearTimeout(pending);
  pending = setTimeout(() => {
    const place = document.getElementById('announcer');
    if (place) place.textContent = text;
  }, 150);
}

/**
 * A short message at the bottom of the page, with at most one action.
 * @param {string} text
 * @param {{action?: {label: string, run: () => void}, kind?: 'info'|'error', seconds?: number}} [options]
 */
export function toast(text, { action, kind = 'info', seconds = 7 } = {}) {
  const close = () => note.remove();
  const note = h('div', { class: `toast ${kind}`, role: kind === 'error' ? 'alert' : 'status' }, h('span', null, text),
    action && h('button', { type: 'button', class: 'link', onclick: () => { close(); action.run(); } }, action.label),
    button({ icon: 'close', label: 'Dismiss', iconOnly: true, class: 'quiet', onclick: close }));
  // Inside an open dialog, or it would lie below it.
  const dialogs = document.querySelectorAll('dialog[open]');
  const place = document.getElementById('toasts');
  if (dialogs.length) dialogs[dialogs.length - 1].append(place);
  else document.body.append(place);
  place.replaceChildren(note);
  // A message that asks for something stays; WCAG asks that nobody is hurried.
  if (kind !== 'error' && !action) setTimeout(close, seconds * 1000);
  else setTimeout(close, 20000);
  return close;
}

/**
 * A modal dialog over the page. Esc and a click beside it close it; focus returns to where it was.
 * @param {{title: string, class?: string, body: any, foot?: any, onclose?: () => void, plain?: boolean}} options
 * @returns {HTMLDialogElement & {finish: () => void}}
 */
export function dialog({ title, class: kind = '', body, foot, onclose }) {
  const before = document.activeElement;
  const heading = h('h2', { id: `title-${++dialog.count}` }, title);
  const box = h('dialog', { class: `dialog ${kind}`, 'aria-labelledby': heading.id },
    h('div', { class: 'dialog-box' },
      h('div', { class: 'dialog-head' }, heading,
        button({ icon: 'close', label: 'Close', iconOnly: true, class: 'quiet', onclick: () => box.close() })),
      h('div', { class: 'dialog-body' }, body),
      foot && h('div', { class: 'dialog-foot' }, foot)));
  box.addEventListener('click', (event) => { if (event.target === box) box.close(); });
  box.addEventListener('close', () => {
    const toasts = box.querySelector('#toasts');
    if (toasts) document.body.append(toasts);
    box.remove();
    onclose?.();
    if (before instanceof HTMLElement && before.isConnected) before.focus();
  });
  box.finish = () => box.close();
  document.body.append(box);
  box.showModal();
  return box;
}
dialog.count = 0;

/** Calls `run` once things have been quiet for `ms`. `.now()` runs what waits at once. */
export function debounce(ms, run) {
  let timer = 0;
  let last = null;
  const wait = (...args) => {
    last = args;
    clearTimeout(timer);
    timer = setTimeout(() => { last = null; run(...args); }, ms);
  };
  wait.now = () => { if (last) { clearTimeout(timer); const args = last; last = null; run(...args); } };
  wait.cancel = () => { clearTimeout(timer); last = null; };
  return wait;
}

/** Whether the person is typing, so that single keys must not act. */
export function typing(target) {
  return target instanceof HTMLElement && (target.isContentEditable || target.matches('input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select'));
}
