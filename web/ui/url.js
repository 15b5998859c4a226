/**
 * What the page shows, as an address. Everything is behind the `#`, which browsers keep to
 * themselves: what is searched for is in no server's log.
 */

/**
 * An example: a picture of the collection, an address, or the token of an uploaded picture.
 * @typedef {{kind: 'id'|'url'|'query', value: string}} Example
 * @typedef {{x: number, y: number, width: number, height: number}} Crop shares of the sides, 0 to 1
 * @typedef {{field: string, op: '='|'in'|'range'|'exists', value: any}} Chip
 * @typedef {{
 *   page: 'search'|'duplicates'|'sets'|'activity', sub: string, collection: string,
 *   like: Example[], unlike: Example[], crop: Crop|null, chips: Chip[], where: string,
 *   min: number|null, fold: boolean, view: number|null, tab: string
 * }} State
 */

/** @returns {State} nothing asked for */
export const blank = () => ({
  page: 'search', sub: '', collection: '', like: [], unlike: [], crop: null, chips: [], where: '',
  min: null, fold: true, view: null, tab: '',
});

const PAGES = ['search', 'duplicates', 'sets', 'activity'];

/**
 * `id:17` and the like.
 * @returns {Example|null}
 */
const example = (text) => {
  const [, kind, value] = /^(id|url|query):(.+)$/s.exec(text) ?? [];
  return kind && (kind !== 'id' || /^\d+$/.test(value)) ? /** @type {Example} */ ({ kind, value }) : null;
};
const written = ({ kind, value }) => `${kind}:${value}`;

/**
 * Reads an address; what cannot be understood is left out.
 * @param {string} hash
 * @returns {State}
 */
export function parse(hash) {
  const state = blank();
  const [path, query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const [page, ...sub] = path.split('/').map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  if (PAGES.includes(page)) state.page = /** @type {any} */ (page);
  state.sub = sub.filter(Boolean).join('/');
  const params = new URLSearchParams(query);
  state.collection = params.get('c') ?? '';
  state.like = params.getAll('like').map(example).filter(Boolean);
  state.unlike = params.getAll('unlike').map(example).filter(Boolean);
  const crop = (params.get('crop') ?? '').split(',').map(Number);
  if (crop.length === 4 && crop.every((n) => Number.isFinite(n) && n >= 0 && n <= 1) && crop[2] > 0 && crop[3] > 0) {
    state.crop = { x: crop[0], y: crop[1], width: Math.min(crop[2], 1 - crop[0]), height: Math.min(crop[3], 1 - crop[1]) };
  }
  for (const text of params.getAll('f')) {
    try {
      const [field, op, value] = JSON.parse(text);
      if (typeof field === 'string' && ['=', 'in', 'range', 'exists'].includes(op)) state.chips.push({ field, op, value });
    } catch { /* not one of ours */ }
  }
  state.where = params.get('where') ?? '';
  const min = Number.parseFloat(params.get('min') ?? '');
  state.min = Number.isFinite(min) && min > -1 && min <= 1 ? min : null;
  state.fold = params.get('fold') !== '0';
  state.view = /^\d+$/.test(params.get('view') ?? '') ? Number(params.get('view')) : null;
  state.tab = params.get('tab') ?? '';
  return state;
}

/**
 * The address of a state, from the `#` on.
 * @param {State} state
 */
export function format(state) {
  const params = new URLSearchParams();
  if (state.collection) params.set('c', state.collection);
  for (const each of state.like) params.append('like', written(each));
  for (const each of state.unlike) params.append('unlike', written(each));
  if (state.crop) params.set('crop', [state.crop.x, state.crop.y, state.crop.width, state.crop.height].map((n) => Number(n.toFixed(4))).join(','));
  for (const chip of state.chips) params.append('f', JSON.stringify([chip.field, chip.op, chip.value]));
  if (state.where) params.set('where', state.where);
  if (state.min !== null) params.set('min', String(state.min));
  if (!state.fold) params.set('fold', '0');
  if (state.view !== null) params.set('view', String(state.view));
  if (state.tab) params.set('tab', state.tab);
  const path = [state.page, ...state.sub.split('/').filter(Boolean)].map(encodeURIComponent).join('/');
  const query = params.toString();
  return `#/${path}${query ? `?${query}` : ''}`;
}

/** Whether there is anything to be similar to. */
export const asks = (state) => state.like.length > 0 || state.unlike.length > 0;

export const same = (a, b) => a.kind === b.kind && a.value === b.value;

/** A field as the filter language writes it. */
const fieldName = (name) => (/^(payload\.)?[A-Za-z_][A-Za-z0-9_.:-]*$/.test(name) && !['and', 'or', 'not', 'in', 'between', 'prefix', 'exists', 'true', 'false'].includes(name.toLowerCase())
  ? name : `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``);

/** A value as the filter language writes it. */
const literal = (value) => (typeof value === 'string'
  ? `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n').replaceAll('\r', '\\r').replaceAll('\t', '\\t')}"` : String(value));

/** One chip as a condition. */
function condition({ field, op, value }) {
  const name = fieldName(field);
  if (op === 'exists') return `exists ${name}`;
  if (op === 'in') return `${name} in (${value.map(literal).join(', ')})`;
  if (op === 'range') {
    const [low, high] = value;
    return [low !== null && `${name} >= ${literal(low)}`, high !== null && `${name} <= ${literal(high)}`].filter(Boolean).join(' and ');
  }
  return `${name} = ${literal(value)}`;
}

/**
 * The whole filter in the filter language, or undefined.
 * @param {State} state
 */
export function filterOf(state) {
  const parts = state.chips.map(condition).filter(Boolean);
  if (state.where.trim()) parts.push(`(${state.where.trim()})`);
  return parts.length ? parts.join(' and ') : undefined;
}

/** A chip in words. */
export function chipWords({ field, op, value }) {
  const name = field.replace(/^payload\./, '');
  if (op === 'exists') return `has ${name}`;
  if (op === 'in') return `${name}: ${value.join(', ')}`;
  if (op === 'range') {
    const [low, high] = value;
    if (low === null) return `${name} up to ${high}`;
    return high === null ? `${name} from ${low}` : `${name} ${low} to ${high}`;
  }
  return typeof value === 'boolean' ? `${name}: ${value ? 'yes' : 'no'}` : `${name}: ${value}`;
}
