/** The mock's pictures, and how alike they are. */
import { THEMES, random } from './pictures.mjs';

const EDITS = ['mirrored', 'darker', 'cropped'];
const DIM = 24;

const unit = (v) => { const n = Math.hypot(...v) || 1; return v.map((x) => x / n); };
export const dot = (a, b) => a.reduce((s, x, i) => s + x * b[i], 0);

/** A vector near the one of a theme. */
export function vectorOf(theme, seed, wobble = 0.5) {
  const r = random(seed * 7 + 3);
  return unit(Array.from({ length: DIM }, (_, i) => 0.32 + (i === THEMES.indexOf(theme) ? 2.2 : 0) + (r() - 0.5) * 2 * wobble));
}

/** A collection of `n` pictures; every ninth is an edited copy of the one before. */
export function collection(name, n, extra = {}) {
  const items = [];
  for (let i = 0; i < n; i += 1) {
    const copy = i % 9 === 8;
    const of = copy ? items[i - 1] : null;
    const r = random(i + 77 + n);
    const theme = of?.theme ?? THEMES[Math.floor(r() * THEMES.length)];
    const seed = of?.seed ?? i + 1000;
    const wide = r() > 0.3;
    const edit = copy ? EDITS[i % 3] : '';
    const [width, height] = of ? [Math.round(of.width * 0.75), Math.round(of.height * 0.75)] : wide ? [1600, 1200] : [1200, 1600];
    const vector = of ? unit(of.vector.map((x, k) => x + (random(i * 31 + k)() - 0.5) * 0.012)) : vectorOf(theme, seed);
    items.push({
      id: i + 1, path: `/pictures/${name}/${theme}/${theme}-${String(i + 1).padStart(5, '0')}${edit ? `-${edit}` : ''}.png`, width, height,
      bytes: Math.round(width * height * (0.3 + r() * 0.2)), modified: new Date(1.6e12 + i * 86400000).toISOString(),
      sha256: String(i).padStart(64, 'a'), payload: { label: theme, rating: 1 + Math.floor(r() * 5), outdoors: theme !== 'city', camera: ['X100', 'R6', 'Pixel'][i % 3] },
      theme, seed, edit, vector, copyOf: of?.id ?? null,
    });
  }
  return { name, items, dim: DIM, model: 'akin-ti14', servable: true, sequence: 1, failed: 2, ...extra };
}

export const publicItem = ({ id, path, width, height, bytes, modified, sha256, payload }, base) => ({
  id, path, width, height, bytes, modified, sha256, payload, thumbnail: `${base}/images/${id}/thumbnail`, original: `${base}/images/${id}/original`,
});

/** Words for a similarity, as the server gives them. */
const labelOf = (s, p) => (s > 0.9995 ? 'same picture' : s > 0.97 ? 'near copy' : p > 99 ? 'very similar' : p > 93 ? 'similar' : p > 70 ? 'loosely related' : 'unrelated');

/** Percentile of a similarity, from random pairs of the collection. */
export function percentiles(c) {
  if (!c.background) {
    const r = random(5);
    c.background = Array.from({ length: 2000 }, () => dot(c.items[Math.floor(r() * c.items.length)].vector, c.items[Math.floor(r() * c.items.length)].vector)).sort((a, b) => a - b);
  }
  return (s) => { let n = 0; while (n < c.background.length && c.background[n] < s) n += 1; return (100 * n) / c.background.length; };
}

/** Enough of the filter language for the page's own filters. */
export function matcher(filter) {
  if (!filter) return () => true;
  const terms = filter.split(/ and (?![^()]*\))/);
  const value = (item, field) => (field.startsWith('payload.') ? item.payload[field.slice(8)] : item[field] ?? item.payload[field]);
  const parsed = terms.map((text) => {
    const term = text.trim().replace(/^\((.*)\)$/s, '$1');
    let m = /^([\w.]+) in \((.*)\)$/.exec(term);
    if (m) { const list = JSON.parse(`[${m[2]}]`); return (item) => list.includes(value(item, m[1])); }
    m = /^([\w.]+) (=|!=|>=|<=|>|<) (.+)$/.exec(term);
    if (!m) throw new Error(`near “${term}”: expected a comparison`);
    const [, field, op, literal] = m;
    let want;
    try { want = JSON.parse(literal); } catch { throw new Error(`“${literal}” is no value: texts go into quotes`); }
    return (item) => { const v = value(item, field); return { '=': v === want, '!=': v !== want, '>=': v >= want, '<=': v <= want, '>': v > want, '<': v < want }[op]; };
  });
  return (item) => parsed.every((p) => p(item));
}

/** Ranks a collection by a vector; near-copies folded when asked. */
export function rank(c, query, { filter, min_similarity: min, hide_duplicates: fold, exclude = new Set() }) {
  const fits = matcher(filter);
  const percentile = percentiles(c);
  let hits = c.items.filter((item) => fits(item) && !exclude.has(item.id)).map((item) => ({ item, similarity: Math.min(1, dot(item.vector, query)) }));
  hits.sort((a, b) => b.similarity - a.similarity || a.item.id - b.item.id);
  if (min !== undefined && min !== null) hits = hits.filter((h) => h.similarity >= min);
  if (fold) {
    const shown = new Map();
    const kept = [];
    for (const hit of hits) {
      const root = hit.item.copyOf ?? hit.item.id;
      if (shown.has(root)) shown.get(root).duplicates.push(hit.item.id);
      else { hit.duplicates = []; shown.set(root, hit); kept.push(hit); }
    }
    hits = kept;
  }
  return hits.map(({ item, similarity, duplicates }, i) => {
    const p = percentile(similarity);
    return { rank: i + 1, id: item.id, path: item.path, similarity, percentile: p, width: item.width, height: item.height, payload: item.payload, label: labelOf(similarity, p), ...(duplicates ? { duplicates } : {}) };
  });
}

/** 2 mean(p) - mean(n), of length one. */
export function combine(positive, negative) {
  const mean = (list) => list[0].map((_, i) => list.reduce((s, v) => s + v[i], 0) / list.length);
  const p = mean(positive);
  return unit(negative.length ? p.map((x, i) => 2 * x - mean(negative)[i]) : p);
}

/** The fields of a collection, with their commonest values. */
export function fields(c) {
  const kinds = { label: 'text', camera: 'text', rating: 'number', outdoors: 'bool' };
  return Object.entries(kinds).map(([name, kind]) => {
    const counts = new Map();
    for (const item of c.items) counts.set(item.payload[name], (counts.get(item.payload[name]) ?? 0) + 1);
    return { name, kind, distinct: counts.size, top: [...counts].map(([value, count]) => ({ value, count })).sort((a, b) => b.count - a.count).slice(0, 20) };
  });
}
