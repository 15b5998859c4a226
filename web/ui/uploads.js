/**
 * Pictures given as examples. The server keeps an uploaded picture for ten minutes under a token; this
 * tab remembers the file itself, and a small copy for after a reload, so that a forgotten token can be
 * renewed without asking again.
 */
import { Problem, postForm, within } from './api.js';

/** @type {Map<string, File|Blob>} by token */
const files = new Map();
/** Tokens of addresses searched with, so that they are fetched once. @type {Map<string, string>} */
const tokensOfUrls = new Map();
const COPY = 'akin-copy:';

/** Remembers the file behind a token, and soon after a small copy of it for reloads. */
export function remember(token, file) {
  files.set(token, file);
  keepCopy(token, file);
}

async function keepCopy(token, file) {
  try {
    const small = await shrink(file, 640, 0.85);
    const reader = new FileReader();
    reader.onload = () => {
      try {
        const kept = Object.keys(sessionStorage).filter((name) => name.startsWith(COPY));
        if (kept.length > 12) sessionStorage.removeItem(kept[0]);
        sessionStorage.setItem(COPY + token, String(reader.result));
      } catch { /* no room: a reload shows no preview */ }
    };
    reader.readAsDataURL(small);
  } catch { /* a kind the browser cannot draw: no preview, the search works all the same */ }
}

const previews = new Map();
/** An address to show an uploaded picture from, or ''. */
export function previewOf(token) {
  if (!previews.has(token) && files.has(token)) previews.set(token, URL.createObjectURL(files.get(token)));
  if (previews.has(token)) return previews.get(token);
  try { return sessionStorage.getItem(COPY + token) ?? ''; } catch { return ''; }
}

/** The picture behind a token as far as this tab still has it, or null. */
async function restored(token) {
  if (files.has(token)) return files.get(token);
  const copy = previewOf(token);
  if (!copy) return null;
  // Not with fetch: the page's policy allows it for this server only.
  const [head, data] = copy.split(',', 2);
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  return new Blob([bytes], { type: /data:([^;]+)/.exec(head)?.[1] ?? 'image/jpeg' });
}

/**
 * Uploads a picture and gives its token.
 * @param {string} collection
 * @param {File|Blob} file
 * @param {AbortSignal} [signal]
 */
export async function upload(collection, file, signal) {
  const form = new FormData();
  form.append('image', file, file instanceof File && file.name ? file.name : 'picture');
  form.append('request', JSON.stringify({ k: 1 }));
  const answer = await postForm(within(collection, '/search'), form, signal);
  if (!answer?.query) throw new Problem({ code: 'internal', title: 'The server gave no token', detail: 'The picture was searched with, but cannot be used again.' });
  remember(answer.query, file);
  return answer.query;
}

/** The token an address is known under, or ''. */
export const tokenOfUrl = (url) => tokensOfUrls.get(url) ?? '';
export const rememberUrl = (url, token) => { if (token) tokensOfUrls.set(url, token); };
export const forgetUrls = () => tokensOfUrls.clear();

/**
 * New tokens for examples whose old ones the server no longer knows.
 * @returns {Promise<Map<string, string>|null>} old to new; null when a picture is lost for good
 */
export async function renew(collection, tokens, signal) {
  const renewed = new Map();
  for (const token of tokens) {
    const file = await restored(token);
    if (!file) return null;
    renewed.set(token, await upload(collection, file, signal));
  }
  return renewed;
}

/**
 * A JPEG of a picture, its longer side at most `side` pixels.
 * @param {Blob} file
 * @param {number} side
 * @param {number} quality 0 to 1
 * @returns {Promise<Blob>}
 */
export async function shrink(file, side, quality) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext('2d');
  context.fillStyle = '#fff';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((done, fail) => {
    canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error('the picture could not be drawn'))), 'image/jpeg', quality);
  });
}

/** Whether a file may be a picture; the server has the last word. */
export const looksLikePicture = (file) => file.type.startsWith('image/') || /\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic|heif|jxl|qoi|ico|pnm|ppm|pgm)$/i.test(file.name ?? '') || file.type === '';
