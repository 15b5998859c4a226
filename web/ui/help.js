/** The sheet of keys, and the question for a key of the other kind. */
import { key, setKey } from './api.js';
import { button, dialog, h } from './dom.js';

/** @type {[string, [string, string][]][]} */
const KEYS = [
  ['Anywhere', [['/ or Ctrl K', 'Go to the search box'], ['Ctrl V', 'Search with the picture you copied'], ['?', 'This sheet'], ['Esc', 'Close what is open']]],
  ['In the pictures', [['← → ↑ ↓', 'Go from picture to picture'], ['Enter', 'Open it'], ['S', 'Search with it'], ['+ or L', 'More like it'], ['− or U', 'Less like it'], ['X', 'Select it; with Shift and a press, all between'], ['Home, End', 'First or last of the row; with Ctrl of all'], ['Page ↑ ↓', 'A screen up or down']]],
  ['In an open picture', [['← →', 'The one before, the one after']]],
  ['On the frame in your picture', [['← → ↑ ↓', 'Move it'], ['Shift and arrows', 'Make it smaller or larger'], ['Ctrl and arrows', 'In small steps'], ['Esc', 'Take the whole picture']]],
  ['In duplicates', [['1 to 9', 'Keep that one'], ['Enter', 'Decide'], ['N', 'They are not duplicates'], ['J, K', 'Next or previous group'], ['C', 'Compare side by side']]],
];

let open = null;
export function showHelp() {
  if (open) { open.close(); return; }
  open = dialog({
    title: 'Help', class: 'wide', onclose: () => { open = null; },
    body: [h('p', { class: 'muted' }, '“Closer than 98 %” means: of all pairs of pictures here, 98 % are less alike than yours and this one. “Numbers” shows the similarity itself, from −1 to 1.'), h('div', { class: 'keys' }, KEYS.map(([where, list]) => h('section', null, h('h3', null, where),
      h('dl', null, list.map(([pressed, does]) => h('div', null, h('dt', null, h('kbd', null, pressed)), h('dd', null, does)))))))],
  });
}

/**
 * Asks for a key the server wants; kept in this tab only.
 * @returns {Promise<boolean>} whether one was given
 */
export function askForKey() {
  return new Promise((done) => {
    let given = false;
    const refused = key() !== '';
    const input = h('input', { type: 'password', class: 'input', id: 'key', autocomplete: 'off', spellcheck: false, placeholder: 'akin_…', required: true, 'aria-describedby': 'key-why', ...(refused ? { 'aria-invalid': 'true' } : {}) });
    const form = h('form', {
      onsubmit: (event) => {
        event.preventDefault();
        if (!input.value.trim()) return;
        given = true;
        setKey(input.value.trim());
        box.close();
      },
    },
    h('p', { id: 'key-why', ...(refused ? { class: 'error-text' } : {}) }, refused ? 'This key was refused. Look whether it is whole; it may also have been withdrawn.' : 'This server wants a key. Whoever runs it can make one with “akin key create”.'),
    h('label', { for: 'key', class: 'field' }, 'Key', input),
    h('p', { class: 'muted small-text' }, 'It stays in this tab and is forgotten when you close it.'),
    h('div', { class: 'dialog-actions' },
      button({ label: 'Not now', onclick: () => box.close() }),
      h('button', { type: 'submit', class: 'button primary' }, h('span', null, 'Go on'))));
    const box = dialog({ title: 'A key, please', class: 'small', body: form, onclose: () => done(given) });
    input.focus();
  });
}
