/** From what the page shows to what the server is asked, and back. */
import { Problem, get, post, within } from './api.js';
import { filterOf } from './url.js';
import { forgetUrls, renew, rememberUrl, tokenOfUrl } from './uploads.js';

const PAGE = 60;
const LATER = 200;

/** A crop in four decimals that lies inside the picture however it was rounded. */
function inside({ x, y, width, height }) {
  const [left, top] = [x, y].map((n) => Math.round(n * 1e4));
  return { x: left / 1e4, y: top / 1e4, width: Math.min(Math.round(width * 1e4), 1e4 - left) / 1e4, height: Math.min(Math.round(height * 1e4), 1e4 - top) / 1e4 };
}

/** An example as the server wants it. */
function written(example, crop) {
  const part = crop ? { crop: inside(crop) } : {};
  if (example.kind === 'id') return { id: Number(example.value), ...part };
  if (example.kind === 'query') return { query: example.value, ...part };
  const token = tokenOfUrl(example.value);
  return token ? { query: token, ...part } : { url: example.value, ...part };
}

/**
 * The fields that say what to look for.
 * @param {import('./url.js').State} state
 * @returns {Record<string, any>}
 */
export function looking(state) {
  const body = { positive: state.like.map((example, i) => written(example, i === 0 ? state.crop : null)) };
  if (state.unlike.length) body.negative = state.unlike.map((example) => written(example, null));
  const filter = filterOf(state);
  if (filter) body.filter = filter;
  return body;
}

/** Whether a problem means that an uploaded picture is no longer known. */
export const forgotten = (problem, state) => problem instanceof Problem
  && problem.code === 'query_expired'
  && [...state.like, ...state.unlike].some((e) => e.kind === 'query' || (e.kind === 'url' && tokenOfUrl(e.value)));

/**
 * Searches, and renews uploads that the server forgot where this tab still has them.
 * @param {import('./url.js').State} state
 * @param {AbortSignal} signal
 * @param {(old: Map<string, string>) => void} onrenewed told when tokens were replaced
 * @returns {Promise<{page: import('./grid.js').Page, answer: any, state: import('./url.js').State}>}
 */
export async function search(collection, state, signal, onrenewed) {
  try {
    return await first(collection, state, signal);
  } catch (problem) {
    if (!forgotten(problem, state)) throw problem;
    const tokens = [...state.like, ...state.unlike].filter((e) => e.kind === 'query').map((e) => e.value);
    forgetUrls();
    const renewed = await renew(collection, tokens, signal);
    if (!renewed) {
      throw new Problem({
        code: 'query_expired', title: 'This picture is no longer here',
        detail: 'The search was made with an uploaded picture. Akin keeps those for ten minutes and then forgets them.',
        remedy: 'Drop the picture here again to go on; filters and settings stay as they are.', status: 410,
      });
    }
    const replaced = (list) => list.map((e) => (e.kind === 'query' && renewed.has(e.value) ? { ...e, value: renewed.get(e.value) } : e));
    const next = { ...state, like: replaced(state.like), unlike: replaced(state.unlike) };
    if (renewed.size) onrenewed(renewed);
    return first(collection, next, signal);
  }
}

async function first(collection, state, signal) {
  /** @type {Record<string, any>} */
  const body = { ...looking(state), k: PAGE };
  if (state.min !== null) body.min_similarity = state.min;
  if (state.fold) body.hide_duplicates = true;
  const answer = await post(within(collection, '/search'), body, signal);
  if (state.like.length === 1 && state.like[0].kind === 'url' && !state.crop) rememberUrl(state.like[0].value, answer.query);
  return { page: { items: answer.hits, next: answer.next_cursor ?? null }, answer, state };
}

/** The pages after the first. */
export const later = (collection, state, signal) => async (cursor) => {
  /** @type {Record<string, any>} */
  const body = { ...looking(state), k: LATER, cursor };
  if (state.min !== null) body.min_similarity = state.min;
  if (state.fold) body.hide_duplicates = true;
  const answer = await post(within(collection, '/search'), body, signal);
  return { items: answer.hits, next: answer.next_cursor ?? null };
};

/** Everything there is, in order. */
export const browse = (collection, state, signal) => async (cursor) => {
  const answer = await get(within(collection, '/images'), { cursor, limit: 120, filter: filterOf(state) }, signal);
  return { items: answer.images, next: answer.next_cursor ?? null };
};

/** How many pictures a cut leaves; null where the server does not count. */
export async function countOf(collection, state, min, signal) {
  /** @type {Record<string, any>} */
  const body = state.like.length || state.unlike.length ? looking(state) : { filter: filterOf(state) };
  if (min !== null) body.min_similarity = min;
  const answer = await post(within(collection, '/count'), body, signal);
  return answer?.count ?? null;
}
