/**
 * The search box, and everything that can be dropped or pasted anywhere on the page: files, picture
 * addresses, and tiles of the grid.
 */
import { button, h, icon, toast, typing } from './dom.js';
import { DRAGGED } from './tile.js';
import { looksLikePicture } from './uploads.js';

/**
 * What someone gave to search with.
 * @typedef {{files?: File[], url?: string, id?: string}} Given
 * @typedef {'search'|'like'|'unlike'} Role
 */

/** @param {{ongive: (given: Given, role: Role) => void}} options */
export function createQueryBox({ ongive }) {
  const file = h('input', { type: 'file', accept: 'image/*,.heic,.avif,.tif,.tiff,.jxl,.qoi', multiple: true, class: 'unseen', tabIndex: -1, 'aria-label': 'Picture files' });
  const address = h('input', {
    type: 'text', class: 'address', id: 'query', autocomplete: 'off', spellcheck: false, inputMode: 'url', enterKeyHint: 'search',
    placeholder: 'Paste a picture or its web address', 'aria-label': 'Paste a picture, or type the web address of one',
  });
  const error = h('p', { class: 'field-error', role: 'alert', id: 'query-error', hidden: true });
  const form = h('form', { class: 'box', dataset: { drop: 'search' }, role: 'search', 'aria-label': 'Search by picture' },
    icon('search'), address,
    button({ icon: 'upload', label: 'Choose a picture', class: 'choose', onclick: () => file.click() }),
    h('button', { type: 'submit', class: 'button primary go' }, h('span', null, 'Search')));
  const hint = h('p', { class: 'hint' }, icon('image'), h('span', null, 'Drop a picture anywhere on this page. It is used for this search only and is not saved.'));
  const element = h('div', { class: 'querybox' }, form, error, file, hint);

  function complain(text) {
    error.textContent = text;
    error.hidden = !text;
    if (text) address.setAttribute('aria-describedby', error.id);
    address.toggleAttribute('aria-invalid', !!text);
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const text = address.value.trim();
    if (!text) { file.click(); return; }
    const url = webAddress(text);
    if (!url) {
      complain('That is not a web address. It begins with https:// or http://. To search by a picture of your own, drop it here or choose it.');
      return;
    }
    complain('');
    address.value = '';
    ongive({ url }, 'search');
  });
  address.addEventListener('input', () => { complain(''); form.classList.toggle('filled', address.value.trim() !== ''); });
  file.addEventListener('change', () => {
    if (file.files?.length) ongive({ files: [...file.files] }, 'search');
    file.value = '';
  });

  return {
    element,
    focus() { address.focus(); address.select(); },
    clear() { address.value = ''; form.classList.remove('filled'); complain(''); },
  };
}

/** An http or https address, or null. */
export function webAddress(text) {
  if (!/^https?:\/\//i.test(text)) return null;
  try { return new URL(text).href; } catch { return null; }
}

/**
 * Takes drops and pastes of the whole page. While something is dragged, places for it are shown.
 * @param {{ongive: (given: Given, role: Role) => void, hasQuery: () => boolean}} options
 */
export function listenEverywhere({ ongive, hasQuery }) {
  const place = (role, name, words) => h('div', { class: 'drop-place', dataset: { drop: role } }, icon(name), h('span', null, words));
  const places = h('div', { class: 'drop-places', hidden: true },
    place('search', 'search', 'Search with it'), place('like', 'plus', 'More like it'), place('unlike', 'minus', 'Less like it'));
  document.body.append(places);
  let over = 0;

  const kinds = (event) => [...(event.dataTransfer?.types ?? [])];
  const takes = (event) => kinds(event).some((t) => ['Files', DRAGGED, 'text/uri-list'].includes(t));
  const roleAt = (event) => event.target.closest?.('[data-drop]')?.dataset.drop ?? 'search';
  const mark = (target) => { for (const each of document.querySelectorAll('[data-drop]')) each.classList.toggle('over', each === target); };
  function end() {
    over = 0;
    mark(null);
    places.hidden = true;
    document.body.classList.remove('dragging', 'dragging-file');
  }

  addEventListener('dragenter', (event) => {
    if (!takes(event) || document.querySelector('dialog[open]:not(.viewer)')) return;
    over += 1;
    event.preventDefault();
    document.body.classList.add('dragging');
    document.body.classList.toggle('dragging-file', !kinds(event).includes(DRAGGED));
    // The places come a moment later: an element put under the pointer at once would end the drag.
    if (places.hidden && (hasQuery() || kinds(event).includes(DRAGGED))) setTimeout(() => { if (over > 0) places.hidden = false; }, 60);
  });
  addEventListener('dragleave', (event) => {
    if (!takes(event)) return;
    over -= 1;
    if (over <= 0 || event.relatedTarget === null) end();
  });
  addEventListener('dragover', (/** @type {any} */ event) => {
    if (!takes(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = 'copy';
    mark(event.target.closest?.('[data-drop]') ?? null);
  });
  addEventListener('dragend', end);
  addEventListener('drop', (event) => {
    if (!takes(event)) { end(); return; }
    event.preventDefault();
    const role = roleAt(event);
    end();
    if (role === 'set') return; // the place took it itself
    const data = event.dataTransfer;
    const id = data.getData(DRAGGED);
    if (id) { ongive({ id }, role); return; }
    const files = [...data.files];
    const pictures = files.filter(looksLikePicture);
    if (pictures.length) { ongive({ files: pictures }, role); return; }
    if (files.length) { toast('That is not a picture. JPEG, PNG, WebP, GIF, TIFF and the like can be searched with.', { kind: 'error' }); return; }
    const url = webAddress((data.getData('text/uri-list') || data.getData('text/plain')).split('\n')[0].trim());
    if (url) ongive({ url }, role);
    else toast('That cannot be searched with. Drop a picture file, or a picture of a web page.', { kind: 'error' });
  });

  addEventListener('paste', (event) => {
    if (document.querySelector('dialog[open]')) return;
    const data = event.clipboardData;
    const files = [...(data?.files ?? [])].filter((f) => f.type.startsWith('image/'));
    if (files.length) {
      event.preventDefault();
      ongive({ files }, 'search');
      return;
    }
    const url = webAddress((data?.getData('text/plain') ?? '').trim());
    if (url && !typing(event.target)) {
      event.preventDefault();
      ongive({ url }, 'search');
    }
  });
}
