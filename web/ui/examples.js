/** The panel of what is searched with: the picture and its crop, further examples, unwanted ones. */
import { createCropper } from './crop.js';
import { button, fill, h, icon } from './dom.js';
import { showThumbnail } from './images.js';
import { previewOf } from './uploads.js';

/**
 * @param {{collection: () => string, onremove: (role: 'like'|'unlike', example: import('./url.js').Example) => void,
 *   oncrop: (crop: import('./url.js').Crop|null) => void, onclear: () => void}} options
 */
export function createExamples(options) {
  const cropper = createCropper({ onchange: options.oncrop });
  const place = h('div', { class: 'example-place' });
  const remove = button({ icon: 'close', label: 'Start over', class: 'quiet small', onclick: options.onclear });
  const head = h('div', { class: 'panel-head' }, h('h2', null, 'Looking for'), remove);
  const like = h('div', { class: 'example-list', dataset: { drop: 'like' } });
  const unlike = h('div', { class: 'example-list', dataset: { drop: 'unlike' } });
  const element = h('section', { class: 'examples', 'aria-label': 'What you are looking for' }, head, cropper.element, place, like, unlike);
  cropper.img.addEventListener('error', () => { cropper.enable(false); unseen('This kind of picture cannot be shown here, but it can be searched with.'); });
  let shown = '';

  function unseen(text, name = 'image') { fill(place, h('div', { class: 'unseen-example' }, icon(name), h('span', null, text))); }

  /** Shows the first example large, where there is something to show. */
  function drawMain(example) {
    const wanted = example ? `${options.collection()}/${example.kind}:${example.value}` : '';
    if (wanted === shown) return;
    shown = wanted;
    cropper.element.classList.remove('on-its-way');
    cropper.enable(false);
    cropper.img.removeAttribute('srcset');
    cropper.img.removeAttribute('src');
    cropper.element.hidden = false;
    fill(place);
    if (!example) { cropper.element.hidden = true; return; }
    const see = () => { cropper.element.hidden = false; cropper.enable(true); };
    if (example.kind === 'id') {
      cropper.img.alt = `Picture ${example.value} of this collection`;
      showThumbnail(cropper.img, options.collection(), Number(example.value), 290);
      see();
    } else if (example.kind === 'query') {
      const from = previewOf(example.value);
      cropper.img.alt = 'The picture you gave';
      if (from) { cropper.img.classList.remove('loading'); cropper.img.src = from; see(); } else { cropper.element.hidden = true; unseen('A picture given elsewhere'); }
    } else {
      cropper.element.hidden = true;
      let host = example.value;
      try { host = new URL(example.value).host; } catch { /* shown as it is */ }
      unseen(`A picture from ${host}. To search with a part of it, save it and drop the file here.`, 'link');
    }
  }

  const small = (role, example) => {
    const img = h('img', { alt: '' });
    if (example.kind === 'id') showThumbnail(img, options.collection(), Number(example.value), 64);
    else if (example.kind === 'query' && previewOf(example.value)) img.src = previewOf(example.value);
    const name = example.kind === 'id' ? `picture ${example.value}` : example.kind === 'url' ? example.value : 'a picture you gave';
    return h('li', { class: 'example-small' }, img.src ? img : h('span', { class: 'no-img' }, icon(example.kind === 'url' ? 'link' : 'image')),
      button({ icon: 'close', label: `Take out ${name}`, iconOnly: true, class: 'take-out', onclick: () => options.onremove(role, example) }));
  };

  function drawList(where, role, list, title, name, empty) {
    fill(where, h('h3', null, icon(name), title), list.length
      ? h('ul', { class: 'example-row' }, list.map((example) => small(role, example)))
      : h('p', { class: 'muted small-text' }, empty));
    where.classList.toggle('empty', !list.length);
  }

  return {
    element,
    /** @param {import('./url.js').State} state */
    show(state) {
      drawMain(state.like[0]);
      cropper.show(state.crop);
      drawList(like, 'like', state.like.slice(1), 'More like', 'plus', 'Press + on results that fit.');
      drawList(unlike, 'unlike', state.unlike, 'Less like', 'minus', 'Press − on results that do not.');
    },
    /** Uploads have new tokens. */
    refresh() { shown = ''; },
    /** Shows a file while it is on its way to the server. */
    preview(file) {
      shown = 'on its way';
      fill(place);
      cropper.element.hidden = false;
      cropper.enable(true);
      cropper.show(null);
      cropper.img.classList.remove('loading');
      cropper.img.src = URL.createObjectURL(file);
      cropper.element.classList.add('on-its-way');
    },
  };
}
