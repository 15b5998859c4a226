/** Filters: chips of what is asked for, and buttons for the fields pictures have. */
import { button, fill, h, icon } from './dom.js';
import { chipWords } from './url.js';
import { count } from './words.js';

const SHOWN = 5; // fields with a button of their own

/**
 * @typedef {{name: string, kind: 'text'|'number'|'bool', distinct?: number, top?: {value: any, count: number}[]}} Field
 * @param {{onchange: (chips: import('./url.js').Chip[], where: string) => void}} options
 */
export function createFilters({ onchange }) {
  /** @type {Field[]} */
  let fields = [];
  let chips = [];
  let where = '';
  const element = h('div', { class: 'filters', role: 'group', 'aria-label': 'Filters' });

  const without = (field) => chips.filter((chip) => chip.field !== field);
  const chipOf = (field) => chips.find((chip) => chip.field === field);
  const nameOf = (field) => `payload.${field.name}`;

  function draw() {
    const active = [
      ...chips.map((chip) => remover(chipWords(chip), () => onchange(chips.filter((c) => c !== chip), where))),
      where && remover(where, () => onchange(chips, '')),
    ].filter(Boolean);
    const open = fields.slice(0, SHOWN).filter((field) => !chipOf(nameOf(field)));
    fill(element,
      active,
      open.map((field) => opener(field.name, (panel, close) => drawField(field, panel, close))),
      opener(fields.length > SHOWN ? 'More filters' : 'Size and more', drawMore, 'filter'),
      active.length > 1 && button({ label: 'Clear all', class: 'quiet small', onclick: () => onchange([], '') }));
  }

  const remover = (words, run) => h('button', { type: 'button', class: 'chip on', 'aria-label': `Remove filter: ${words}`, onclick: run }, h('span', null, words), icon('close'));

  /** A button that opens a panel below it. */
  function opener(label, drawPanel, name = 'down') {
    const opened = h('button', { type: 'button', class: 'chip', 'aria-haspopup': 'dialog', 'aria-expanded': 'false', onclick: () => popOver(opened, label, drawPanel) },
      h('span', null, label), icon(name));
    return opened;
  }

  function drawField(field, panel, close) {
    const name = nameOf(field);
    if (field.kind === 'number') return drawRange(name, field, panel, close);
    const set = (chip) => { close(); onchange(chip ? [...without(name), chip] : without(name), where); };
    if (field.kind === 'bool') {
      return fill(panel, h('div', { class: 'pop-buttons' }, [true, false].map((value) => button({ label: value ? 'Yes' : 'No', onclick: () => set({ field: name, op: '=', value }) }))));
    }
    const chosen = new Set();
    const values = field.top ?? [];
    const list = h('div', { class: 'pop-list', role: 'group', 'aria-label': `Values of ${field.name}` });
    const drawList = (part) => fill(list, values.filter(({ value }) => String(value).toLowerCase().includes(part.toLowerCase())).map(({ value, count: n }) => h('label', { class: 'check' },
      h('input', { type: 'checkbox', checked: chosen.has(value), onchange: (e) => { if (e.target.checked) chosen.add(value); else chosen.delete(value); } }),
      h('span', { class: 'grow' }, String(value)), h('span', { class: 'muted' }, count(n)))));
    const find = h('input', { type: 'text', class: 'input', placeholder: values.length > 8 ? 'Find or type a value' : 'Another value', 'aria-label': `Find or type a value of ${field.name}`, oninput: () => drawList(find.value) });
    drawList('');
    const apply = () => {
      const all = [...chosen];
      const typed = find.value.trim();
      if (!all.length && typed) all.push(values.find(({ value }) => String(value).toLowerCase() === typed.toLowerCase())?.value ?? typed);
      set(all.length === 0 ? null : all.length === 1 ? { field: name, op: '=', value: all[0] } : { field: name, op: 'in', value: all });
    };
    return fill(panel, h('form', { onsubmit: (e) => { e.preventDefault(); apply(); } }, (values.length > 8 || (field.distinct ?? 0) > values.length) && find, list, h('div', { class: 'pop-foot' }, h('button', { type: 'submit', class: 'button primary small' }, h('span', null, 'Show these')))));
  }

  function drawRange(name, field, panel, close) {
    const values = (field.top ?? []).map(({ value }) => value).filter((v) => typeof v === 'number');
    const bound = (label, hint) => h('input', { type: 'number', step: 'any', class: 'input', placeholder: hint, 'aria-label': `${field.name} ${label}` });
    const low = bound('from', values.length ? String(Math.min(...values)) : 'from');
    const high = bound('to', values.length ? String(Math.max(...values)) : 'to');
    const read = (input) => (input.value.trim() === '' || !Number.isFinite(Number(input.value)) ? null : Number(input.value));
    return fill(panel, h('form', {
      onsubmit: (event) => {
        event.preventDefault();
        const value = [read(low), read(high)];
        close();
        onchange(value[0] === null && value[1] === null ? without(name) : [...without(name), { field: name, op: 'range', value }], where);
      },
    }, h('div', { class: 'range-fields' }, h('label', null, 'From', low), h('label', null, 'To', high)),
    h('div', { class: 'pop-foot' }, h('button', { type: 'submit', class: 'button primary small' }, h('span', null, 'Show these')))));
  }

  /** Fields without a button, sizes, and the filter language. */
  function drawMore(panel, close) {
    const own = h('textarea', { class: 'input', rows: 2, spellcheck: false, value: where, placeholder: 'width >= 1000 and not (label = "dog")', 'aria-label': 'A filter in Akin’s own language' });
    /** @type {[Field, string][]} */
    const rest = [...fields.slice(SHOWN).map((field) => /** @type {[Field, string]} */ ([field, nameOf(field)])), [{ name: 'width', kind: 'number' }, 'width'], [{ name: 'height', kind: 'number' }, 'height']];
    const inner = h('div');
    fill(panel,
      h('div', { class: 'pop-buttons' }, rest.filter(([, name]) => !chipOf(name)).map(([field, name]) => button({
        label: field.name, class: 'small',
        onclick: () => (name === field.name ? drawRange(name, field, inner, close) : drawField(field, inner, close)),
      }))),
      inner,
      h('form', { class: 'own-filter', onsubmit: (event) => { event.preventDefault(); close(); onchange(chips, own.value.trim()); } },
        h('label', null, 'Or write a filter', own),
        h('p', { class: 'muted small-text' }, 'Compare fields with =, !=, <, >=; join with and, or, not. Example: date >= "2024-05-01" and exists exif.lat'),
        h('div', { class: 'pop-foot' }, h('button', { type: 'submit', class: 'button primary small' }, h('span', null, 'Use it')))));
  }

  return {
    element,
    /** @param {Field[]} next */
    setFields(next) { fields = next ?? []; draw(); },
    show(nextChips, nextWhere) { chips = nextChips; where = nextWhere; draw(); },
  };
}

/**
 * A panel below a button; a click elsewhere or Esc closes it and gives the focus back.
 * @param {HTMLElement} anchor
 * @param {string} label
 * @param {(panel: HTMLElement, close: () => void) => void} drawPanel
 */
export function popOver(anchor, label, drawPanel) {
  const panel = h('div', { class: 'pop-inner' });
  const pop = h('div', { class: 'pop', popover: 'auto', role: 'dialog', 'aria-label': label }, panel);
  const close = () => pop.hidePopover();
  document.body.append(pop);
  drawPanel(panel, close);
  pop.addEventListener('toggle', (event) => {
    if (event.newState !== 'closed') return;
    const inside = pop.contains(document.activeElement) || document.activeElement === document.body;
    pop.remove();
    anchor.setAttribute('aria-expanded', 'false');
    if (inside && anchor.isConnected) anchor.focus();
  });
  anchor.setAttribute('aria-expanded', 'true');
  pop.showPopover();
  const at = anchor.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, innerWidth - pop.offsetWidth - 8));
  const below = at.bottom + 6;
  const top = below + pop.offsetHeight > innerHeight - 8 ? Math.max(8, at.top - pop.offsetHeight - 6) : below;
  pop.style.left = `${left}px`;
  pop.style.top = `${top}px`;
  pop.querySelector('input, textarea, button')?.focus();
}
