/** Light, dark, or as the system has it. */
const KEY = 'akin-theme';
const ORDER = ['auto', 'light', 'dark'];

const stored = () => { try { return localStorage.getItem(KEY) ?? 'auto'; } catch { return 'auto'; } };
let now = ORDER.includes(stored()) ? stored() : 'auto';

function apply() {
  if (now === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = now;
}
apply();

export const theme = {
  get now() { return now; },
  /** The next of automatic, light, dark. */
  turn() {
    now = ORDER[(ORDER.indexOf(now) + 1) % ORDER.length];
    try { localStorage.setItem(KEY, now); } catch { /* for this visit only, then */ }
    apply();
    return now;
  },
  icon: () => ({ auto: 'auto', light: 'sun', dark: 'moon' })[now],
  words: () => ({ auto: 'Colours: as your system', light: 'Colours: light', dark: 'Colours: dark' })[now],
};
