/**
 * Showing pictures of a collection. Without a key the browser loads them itself, in the size that
 * fits; with a key they are fetched with it and shown from memory.
 */
import { address, key, send, within } from './api.js';

const SIZES = [160, 320, 640];
const KEPT = 400;

/** Pictures fetched with a key, most recently used last. @type {Map<string, string>} */
const fetched = new Map();

/** The address of a thumbnail; `size` is one of 160, 320, 640. */
export const thumbnail = (collection, id, size) => address(within(collection, `/images/${id}/thumbnail`), { size });
/** The address of the original file. */
export const original = (collection, id) => address(within(collection, `/images/${id}/original`));

/** The smallest size that is at least `pixels` wide. */
const fitting = (pixels) => SIZES.find((size) => size >= pixels) ?? SIZES[SIZES.length - 1];

/**
 * Shows a thumbnail in `img`, sharp at `width` CSS pixels. A picture that cannot be had leaves the
 * class `missing`.
 * @param {HTMLImageElement} img
 * @param {string} collection
 * @param {number} id
 * @param {number} width
 */
export function showThumbnail(img, collection, id, width) {
  img.decoding = 'async';
  img.onload = () => { img.classList.remove('loading', 'missing'); };
  img.onerror = () => { img.classList.remove('loading'); img.classList.add('missing'); };
  img.classList.add('loading');
  img.classList.remove('missing');
  if (!key()) {
    img.sizes = `${Math.round(width)}px`;
    img.srcset = SIZES.map((size) => `${thumbnail(collection, id, size)} ${size}w`).join(', ');
    img.src = thumbnail(collection, id, fitting(width)).href;
    return;
  }
  showFetched(img, thumbnail(collection, id, fitting(width * Math.min(devicePixelRatio || 1, 2))));
}

/** What is on its way for an image; given up when it gets another picture. @type {WeakMap<HTMLImageElement, AbortController>} */
const underWay = new WeakMap();

/** Shows a picture fetched with the key; nothing happens if `img` was given another one meanwhile. */
async function showFetched(img, url) {
  img.dataset.wanted = url.href;
  underWay.get(img)?.abort();
  const asked = new AbortController();
  underWay.set(img, asked);
  try {
    const shown = await blobAddress(url, asked.signal);
    if (img.dataset.wanted === url.href) img.src = shown;
  } catch {
    if (img.dataset.wanted === url.href) { img.classList.remove('loading'); img.classList.add('missing'); }
  }
}

/** The address in memory of a picture fetched with the key. */
async function blobAddress(url, signal) {
  const known = fetched.get(url.href);
  if (known) {
    fetched.delete(url.href);
    fetched.set(url.href, known);
    return known;
  }
  const response = await send('GET', url, { signal });
  const made = URL.createObjectURL(await response.blob());
  fetched.set(url.href, made);
  for (const [oldest, old] of fetched) {
    if (fetched.size <= KEPT) break;
    fetched.delete(oldest);
    URL.revokeObjectURL(old);
  }
  return made;
}

/**
 * Shows the original; until it is there the thumbnail that the grid has shown already, and where it
 * cannot be shown (gone, changed, of a kind browsers do not draw) the largest one.
 * @param {HTMLImageElement} img
 * @param {(state: 'preview'|'original'|'preview-only') => void} tell
 */
export function showOriginal(img, collection, id, tell) {
  const preview = thumbnail(collection, id, 320);
  const largest = thumbnail(collection, id, 640);
  const whole = original(collection, id);
  const mark = whole.href;
  img.dataset.whole = mark;
  img.classList.remove('missing');
  img.removeAttribute('srcset');
  img.onerror = () => img.classList.add('missing');
  img.onload = null;
  if (key()) showFetched(img, preview);
  else img.src = preview.href;
  tell('preview');
  const loader = new Image();
  loader.onload = () => {
    if (img.dataset.whole !== mark) return;
    img.dataset.wanted = '';
    img.src = loader.src;
    img.classList.remove('missing');
    tell('original');
  };
  loader.onerror = () => {
    if (img.dataset.whole !== mark) return;
    if (key()) showFetched(img, largest);
    else img.src = largest.href;
    tell('preview-only');
  };
  if (key()) blobAddress(whole).then((shown) => { loader.src = shown; }, () => loader.onerror?.(new Event('error')));
  else loader.src = whole.href;
}

/** Opens an original in another tab; with a key it has to be fetched first. */
export async function openOriginal(collection, id) {
  const tab = open('', '_blank');
  try {
    const shown = await blobAddress(original(collection, id));
    if (tab) tab.location.href = shown;
  } catch (problem) {
    tab?.close();
    throw problem;
  }
}

/** A picture as drawable pixels: for the difference of two. */
export async function drawable(collection, id) {
  const response = await send('GET', thumbnail(collection, id, 640));
  return createImageBitmap(await response.blob());
}
