/** Pictures picked out of the grid, for a data set. Kept while the page is open, by collection. */

/** @type {Map<string, Set<number>>} */
const chosen = new Map();
const watchers = new Set();

const of = (collection) => {
  if (!chosen.has(collection)) chosen.set(collection, new Set());
  return chosen.get(collection);
};
const tell = () => { for (const watch of watchers) watch(); };

export const selection = {
  on: false,
  /** @param {string} collection */
  ids: (collection) => [...of(collection)],
  has: (collection, id) => of(collection).has(id),
  size: (collection) => of(collection).size,
  toggle(collection, id) {
    const set = of(collection);
    if (!set.delete(id)) set.add(id);
    tell();
  },
  /** Puts in all of these. */
  add(collection, ids) { for (const id of ids) of(collection).add(id); tell(); },
  clear(collection) { of(collection).clear(); tell(); },
  /** Calls `watch` after each change; answers how to stop that. */
  watch(watch) { watchers.add(watch); return () => watchers.delete(watch); },
};
