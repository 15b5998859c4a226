/** Two pictures beside each other, over each other, or as their difference. */
import { button, dialog, fill, h, toast } from './dom.js';
import { drawable, showThumbnail } from './images.js';
import { fileName } from './words.js';

const WAYS = { beside: 'Side by side', swap: 'Swap', slide: 'Slide', difference: 'Difference' };

/**
 * @param {string} collection
 * @param {any[]} members at least two
 * @param {number} reference the id shown left
 */
export function openCompare(collection, members, reference) {
  let left = members.find((m) => m.id === reference) ?? members[0];
  let right = members.find((m) => m.id !== left.id) ?? members[0];
  let way = 'beside';
  let flipped = false;
  const stage = h('div', { class: 'compare-stage' });
  const names = h('div', { class: 'compare-names' });
  const tabs = h('div', { class: 'tabs', role: 'group', 'aria-label': 'How to compare' });

  const picture = (member) => { const img = h('img', { alt: fileName(member.path) }); showThumbnail(img, collection, member.id, 640); return img; };
  const picker = (label, value, set) => h('select', { class: 'select', 'aria-label': label, onchange: (e) => { set(members.find((m) => String(m.id) === e.target.value)); draw(); } },
    members.map((m, i) => h('option', { value: String(m.id), selected: m.id === value.id }, `${i + 1}: ${fileName(m.path)}`)));

  function draw() {
    fill(tabs, Object.entries(WAYS).map(([name, words]) => h('button', { type: 'button', class: 'tab', 'aria-pressed': String(way === name), onclick: () => { way = name; draw(); } }, words)));
    fill(names, picker('Left picture', left, (m) => { left = m; }), button({ icon: 'swap', label: 'Change sides', iconOnly: true, onclick: () => { [left, right] = [right, left]; draw(); } }), picker('Right picture', right, (m) => { right = m; }));
    stage.className = `compare-stage ${way}`;
    if (way === 'beside') fill(stage, picture(left), picture(right));
    else if (way === 'swap') drawSwap();
    else if (way === 'slide') drawSlide();
    else drawDifference();
  }

  function drawSwap() {
    const [a, b] = [picture(left), picture(right)];
    const words = h('p', { class: 'muted', role: 'status' });
    const turn = button({ icon: 'swap', label: 'Swap (Space)', class: 'primary', onclick: () => { flipped = !flipped; paint(); } });
    const paint = () => {
      a.classList.toggle('under', flipped);
      b.classList.toggle('under', !flipped);
      words.textContent = `Shown: ${fileName((flipped ? right : left).path)}`;
    };
    fill(stage, h('div', { class: 'over' }, a, b), h('div', { class: 'compare-tools' }, turn, words));
    paint();
  }

  function drawSlide() {
    const over = picture(right);
    const slider = h('input', { type: 'range', min: 0, max: 100, value: 50, class: 'slider', 'aria-label': 'How much of the right picture is shown', oninput: () => paint() });
    const paint = () => { over.style.clipPath = `inset(0 0 0 ${100 - slider.value}%)`; slider.style.setProperty('--at', `${slider.value}%`); };
    fill(stage, h('div', { class: 'over' }, picture(left), over), h('div', { class: 'compare-tools' }, slider));
    paint();
  }

  async function drawDifference() {
    const canvas = h('canvas', { role: 'img', 'aria-label': 'Difference of the two pictures: dark where they are the same' });
    const words = h('p', { class: 'muted', role: 'status' }, 'Working it out…');
    fill(stage, canvas, words);
    try {
      const [a, b] = await Promise.all([drawable(collection, left.id), drawable(collection, right.id)]);
      const share = paintDifference(canvas, a, b);
      words.textContent = share < 0.002 ? 'No difference to be seen.' : `Bright is different: ${share < 0.01 ? 'less than 1' : Math.round(share * 100)} % of the picture. Differences are shown three times as strong.`;
    } catch (problem) {
      toast(`The pictures could not be compared: ${problem.message}`, { kind: 'error' });
      words.textContent = '';
    }
  }

  const box = dialog({ title: 'Compare', class: 'full', body: h('div', { class: 'compare' }, h('div', { class: 'compare-head' }, tabs, names), stage) });
  box.addEventListener('keydown', (/** @type {any} */ event) => {
    if (event.key === ' ' && way === 'swap' && !event.target.matches('select, button')) { event.preventDefault(); flipped = !flipped; draw(); }
  });
  draw();
}

/**
 * Draws |a - b|, b scaled to a's size, three times as strong.
 * @param {HTMLCanvasElement} canvas
 * @returns {number} the share of pixels that differ visibly
 */
export function paintDifference(canvas, a, b) {
  const { width, height } = a;
  canvas.width = width;
  canvas.height = height;
  const pixels = (bitmap) => {
    const each = document.createElement('canvas');
    each.width = width;
    each.height = height;
    const context = each.getContext('2d', { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  };
  const [one, other] = [pixels(a), pixels(b)];
  let visible = 0;
  for (let i = 0; i < one.data.length; i += 4) {
    let most = 0;
    for (let c = 0; c < 3; c += 1) {
      const d = Math.abs(one.data[i + c] - other.data[i + c]);
      most = Math.max(most, d);
      one.data[i + c] = Math.min(255, d * 3);
    }
    one.data[i + 3] = 255;
    if (most > 24) visible += 1;
  }
  canvas.getContext('2d').putImageData(one, 0, 0);
  return visible / (width * height);
}
