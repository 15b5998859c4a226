/** Which picture of a group stays. */

const pixels = (m) => (m.width ?? 0) * (m.height ?? 0);
const stamp = (m) => { const t = typeof m.modified === 'number' ? m.modified : Date.parse(m.modified ?? ''); return Number.isFinite(t) ? t : Infinity; };

/**
 * Rules: name, and the order they put pictures in, best first.
 * @type {Record<string, [string, (a: any, b: any) => number]>}
 */
export const RULES = {
  best: ['The sharpest (most pixels)', (a, b) => pixels(b) - pixels(a) || (b.bytes ?? 0) - (a.bytes ?? 0)],
  largest: ['The largest file', (a, b) => (b.bytes ?? 0) - (a.bytes ?? 0)],
  oldest: ['The oldest', (a, b) => stamp(a) - stamp(b)],
  'path-order': ['The first by path', (a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0)],
};

/** The id that a rule keeps; equals go by id, as on the command line. */
export const choose = (rule, members) => [...members].sort((a, b) => RULES[rule][1](a, b) || a.id - b.id)[0].id;
