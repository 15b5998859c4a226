/** The slider that ends the results where they become too unlike, with a live count. */
import { debounce, h } from './dom.js';
import { some } from './words.js';

/**
 * @param {{onchange: (min: number|null) => void, oncount: (min: number|null, signal: AbortSignal) => Promise<number|null>}} options
 */
export function createCut({ onchange, oncount }) {
  const output = h('output', { class: 'cut-count', for: 'cut' });
  const slider = h('input', { type: 'range', id: 'cut', min: 0, max: 100, step: 1, value: 0, class: 'slider' });
  const element = h('div', { class: 'cut' },
    h('div', { class: 'cut-head' }, h('label', { for: 'cut' }, 'How alike'), output),
    slider,
    h('div', { class: 'cut-ends', 'aria-hidden': 'true' }, h('span', null, 'Everything'), h('span', null, 'Same picture')));
  let asked = null;

  // Most of what matters happens between 0.3 and 1, so the slider's left half covers less.
  const toMin = (value) => (Number(value) === 0 ? null : Number((1 - ((100 - Number(value)) / 100) ** 1.25).toFixed(3)));
  const fromMin = (min) => (min === null ? 0 : Math.round(100 - 100 * Math.max(0, 1 - min) ** 0.8));

  const words = (min) => (min === null ? 'Everything, closest first' : `At least ${min.toFixed(2)} alike`);
  async function ask(min) {
    asked?.abort();
    asked = new AbortController();
    try {
      const n = await oncount(min, asked.signal);
      output.textContent = n === null ? '' : some(n, 'picture');
      element.classList.remove('counting');
    } catch (error) {
      if (error?.name !== 'AbortError') output.textContent = '';
    }
  }
  const askSoon = debounce(120, ask);
  const tell = debounce(350, onchange);
  slider.addEventListener('input', () => {
    const min = toMin(slider.value);
    slider.setAttribute('aria-valuetext', words(min));
    paint();
    element.classList.add('counting');
    askSoon(min);
    tell(min);
  });
  slider.addEventListener('change', () => tell.now());
  const paint = () => slider.style.setProperty('--at', `${slider.value}%`);

  return {
    element,
    show(min) {
      if (toMin(slider.value) !== min) slider.value = String(fromMin(min));
      slider.setAttribute('aria-valuetext', words(min));
      paint();
    },
    /** Counts again: something else about the search changed. */
    recount(min) { askSoon(min); },
  };
}
