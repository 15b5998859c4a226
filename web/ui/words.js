/** Figures and codes in plain words. */

const number = new Intl.NumberFormat('en-GB');

/** 12345 -> "12,345" */
export const count = (n) => (n === null || n === undefined ? '?' : number.format(n));

/** "1 picture", "12 pictures" */
export const some = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** Bytes in units of 1000, as file managers show them. */
export function bytes(n) {
  if (n === null || n === undefined) return '';
  let value = n;
  for (const unit of ['bytes', 'kB', 'MB', 'GB']) {
    if (value < 1000 || unit === 'GB') return `${value < 10 && unit !== 'bytes' ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1000;
  }
  return '';
}

/** Seconds as "40 s", "3 min", "2 h 10 min". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '';
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;
}

/** What the server calls a similarity, or our word for its percentile where it gave none. */
export function likeness(hit) {
  if (hit.label) return capital(hit.label);
  const p = hit.percentile;
  if (hit.similarity >= 0.9995) return 'Same picture';
  if (p === null || p === undefined) return 'Similar';
  if (p >= 99) return 'Very similar';
  if (p >= 90) return 'Similar';
  return p >= 70 ? 'Loosely related' : 'Unrelated';
}

/** Share of random pairs that are less alike, in percent and rounded down so that it never says 100. */
export function percentile(p) {
  if (p === null || p === undefined) return '';
  const shown = p >= 99 ? Math.min(99.9, Math.floor(p * 10) / 10).toFixed(1) : String(Math.floor(p));
  return `closer than ${shown} %`;
}

/** What a program says, as a sentence among others. */
export const sentence = (text) => capital(text).replace(/([^.!?…:])$/, '$1.');

/** What went wrong, and what to do about it. @param {any} problem */
export const wordsOf = (problem) => [problem.detail || problem.message || problem.title, problem.remedy].filter(Boolean).map(sentence).join(' ');

export const capital = (text) => (text ? text[0].toUpperCase() + text.slice(1) : '');

/** The last part of a path. */
export const fileName = (path) => (path ?? '').split(/[\\/]/).filter(Boolean).pop() ?? '';

/** The folder a path is in. */
export const folder = (path) => (path ?? '').slice(0, Math.max(0, (path ?? '').length - fileName(path).length - 1));

/** The day of a moment. */
export function day(value) {
  const date = new Date(typeof value === 'number' && value < 1e11 ? value * 1000 : value ?? NaN);
  return Number.isNaN(date.getTime()) ? '' : date.toLocaleDateString(undefined, { dateStyle: 'medium' });
}

/** A moment given as RFC 3339 text or as seconds since 1970. */
export function moment(value) {
  if (value === null || value === undefined || value === '') return '';
  const date = typeof value === 'number' ? new Date(value < 1e11 ? value * 1000 : value) : new Date(value);
  return Number.isNaN(date.getTime()) ? String(value) : date.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
}

/** Job kinds, as a headline. */
export const jobKind = (kind) => ({
  index: 'Reading pictures', dedup: 'Looking for duplicates', curate: 'Building a data set', export: 'Exporting',
  snapshot: 'Saving a snapshot', compact: 'Giving space back', reindex: 'Reading again',
})[kind] ?? capital(kind ?? 'Work');

export const jobState = (state) => ({ queued: 'Waiting', running: 'Running', done: 'Done', failed: 'Failed', cancelled: 'Cancelled' })[state] ?? capital(state ?? '');

/** Kinds of duplicates. */
export const duplicateKind = (kind) => ({ same_file: 'Same file', same_pixels: 'Same picture', edited: 'Edited copy', similar: 'Look alike', same_subject: 'Same subject' })[kind] ?? capital((kind ?? '').replaceAll('_', ' '));

const STEPS = {
  'self-dedup': 'Copies removed', 'relative-dedup': 'Kept out: like what was excluded', retrieve: 'Gathered: like the examples',
  'sem-dedup': 'Look-alikes thinned out', balance: 'Balanced', union: 'Put together', review: 'Your decisions',
};
const RULES = {
  neighbour: 'Near an example', drawn: 'Of the theme of examples', 'is-seed': 'Is an example', survived: 'Nothing against it',
  accepted: 'You put it in', 'same-file': 'Same file as another', 'near-duplicate': 'Copy of another', leak: 'Like an excluded picture',
  'leak-by-component': 'Linked to an excluded picture', 'not-retrieved': 'Not near any example', 'over-cap': 'Over the limit',
  'semantic-duplicate': 'Look-alike of another', balanced: 'Its theme had its share', rejected: 'You took it out',
};

/** A step of a run in plain words. */
export const stepWords = (name) => { const bare = String(name ?? '').replace(/^\d+-/, ''); return STEPS[bare] ?? plain(bare); };
/** Why a run took or left a picture, in plain words. */
export const ruleWords = (name) => RULES[name] ?? plain(name);

const REASONS = {
  neighbour: 'It is among the nearest of this example:', drawn: 'It was drawn from the theme of this example:', 'is-seed': 'It is one of the examples.',
  survived: 'Nothing spoke against it.', accepted: 'You put it in.', rejected: 'You took it out.', 'same-file': 'It is the same file as one that stays:',
  'near-duplicate': 'It is a copy of one that stays:', leak: 'It is like a picture that must stay out:', 'leak-by-component': 'It is linked to a picture that must stay out:',
  'not-retrieved': 'No example was near enough. The nearest:', 'over-cap': 'There were enough pictures already.',
  'semantic-duplicate': 'It is nearly the same as one that stays:', balanced: 'There are enough pictures of its theme already.',
};

/** Why a picture is in or out, as a sentence; one that ends in a colon is followed by the other picture. */
export const reasonWords = (name) => REASONS[name] ?? '';

/** Names for programs, without their dashes. */
export const plain = (name) => capital(String(name ?? '').replaceAll('-', ' ').replaceAll('_', ' '));
