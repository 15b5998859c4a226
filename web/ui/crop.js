/**
 * A picture of which a part can be chosen: with the mouse or a finger (draw a frame, move it, pull its
 * corners and edges), with the keyboard (arrows on the frame and its corners), or from a list.
 */
import { h } from './dom.js';

const LEAST = 0.05; // of a side
const WHOLE = { x: 0, y: 0, width: 1, height: 1 };
/** @type {Record<string, [string, import('./url.js').Crop]>} */
const PARTS = {
  whole: ['Whole picture', WHOLE],
  middle: ['Middle', { x: 0.25, y: 0.25, width: 0.5, height: 0.5 }],
  left: ['Left half', { x: 0, y: 0, width: 0.5, height: 1 }],
  right: ['Right half', { x: 0.5, y: 0, width: 0.5, height: 1 }],
  top: ['Top half', { x: 0, y: 0, width: 1, height: 0.5 }],
  bottom: ['Bottom half', { x: 0, y: 0.5, width: 1, height: 0.5 }],
};
const CORNERS = { nw: 'top left', ne: 'top right', sw: 'bottom left', se: 'bottom right' };

const clamp = (n, low, high) => Math.min(high, Math.max(low, n));
const isWhole = (c) => c.x < 0.002 && c.y < 0.002 && c.width > 0.996 && c.height > 0.996;

/**
 * @param {{onstart?: () => void, onchange: (crop: import('./url.js').Crop|null) => void}} options
 *   `onchange` is called at each movement; null is the whole picture
 */
export function createCropper({ onstart, onchange }) {
  let crop = { ...WHOLE };
  const img = h('img', { alt: 'The picture you are searching with', draggable: false });
  const frame = h('div', { class: 'crop-frame', tabIndex: 0, role: 'group' });
  for (const at of ['n', 's', 'w', 'e']) frame.append(h('span', { class: `edge ${at}`, dataset: { at }, 'aria-hidden': 'true' }));
  for (const [at, name] of Object.entries(CORNERS)) {
    frame.append(h('button', { type: 'button', class: `handle ${at}`, dataset: { at }, 'aria-label': `${name} corner: arrow keys move it` }));
  }
  const stage = h('div', { class: 'crop-stage' }, img, frame);
  const part = h('select', { 'aria-label': 'Part of the picture to search with', class: 'select' },
    Object.entries(PARTS).map(([value, [name]]) => h('option', { value }, name)), h('option', { value: 'own', hidden: true }, 'A part of it'));
  const tools = h('div', { class: 'crop-tools' }, part);
  const element = h('div', { class: 'crop' }, stage, tools);

  function draw() {
    frame.style.left = `${crop.x * 100}%`;
    frame.style.top = `${crop.y * 100}%`;
    frame.style.width = `${crop.width * 100}%`;
    frame.style.height = `${crop.height * 100}%`;
    const whole = isWhole(crop);
    stage.classList.toggle('whole', whole);
    const share = (n) => `${Math.round(n * 100)} %`;
    frame.setAttribute('aria-label', whole
      ? 'Searching with the whole picture. Arrow keys with Shift make the frame smaller.'
      : `Searching with a part: ${share(crop.x)} from the left, ${share(crop.y)} from the top, ${share(crop.width)} wide, ${share(crop.height)} high. Arrow keys move the frame, with Shift they change its size, Escape takes the whole picture.`);
    const known = Object.entries(PARTS).find(([, [, c]]) => ['x', 'y', 'width', 'height'].every((k) => Math.abs(c[k] - crop[k]) < 0.004));
    part.value = known ? known[0] : 'own';
  }

  function set(next, tell = true) {
    const width = clamp(next.width, LEAST, 1);
    const height = clamp(next.height, LEAST, 1);
    crop = { x: clamp(next.x, 0, 1 - width), y: clamp(next.y, 0, 1 - height), width, height };
    draw();
    if (tell) onchange(isWhole(crop) ? null : { ...crop });
  }

  /** The frame after one of its edges or corners moved by shares of the picture. */
  function pulled(from, at, dx, dy) {
    let { x, y, width, height } = from;
    if (at.includes('w')) { const to = clamp(x + dx, 0, x + width - LEAST); width += x - to; x = to; }
    if (at.includes('e')) width = clamp(width + dx, LEAST, 1 - x);
    if (at.includes('n')) { const to = clamp(y + dy, 0, y + height - LEAST); height += y - to; y = to; }
    if (at.includes('s')) height = clamp(height + dy, LEAST, 1 - y);
    return { x, y, width, height };
  }

  stage.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    const box = stage.getBoundingClientRect();
    const point = (e) => ({ x: clamp((e.clientX - box.left) / box.width, 0, 1), y: clamp((e.clientY - box.top) / box.height, 0, 1) });
    const start = point(event);
    const from = { ...crop };
    const at = event.target.dataset?.at ?? (event.target === frame && !isWhole(crop) ? 'move' : 'draw');
    let moved = false;
    event.preventDefault();
    (event.target.closest('button') ?? frame).focus({ preventScroll: true });
    stage.setPointerCapture(event.pointerId);
    const move = (e) => {
      const now = point(e);
      const [dx, dy] = [now.x - start.x, now.y - start.y];
      if (!moved) {
        if (Math.hypot(dx * box.width, dy * box.height) < 4) return;
        moved = true;
        onstart?.();
      }
      if (at === 'move') set({ ...from, x: clamp(from.x + dx, 0, 1 - from.width), y: clamp(from.y + dy, 0, 1 - from.height) });
      else if (at === 'draw') set({ x: Math.min(start.x, now.x), y: Math.min(start.y, now.y), width: Math.abs(dx), height: Math.abs(dy) });
      else set(pulled(from, at, dx, dy));
    };
    const end = () => {
      stage.removeEventListener('pointermove', move);
      stage.removeEventListener('pointerup', end);
      stage.removeEventListener('pointercancel', end);
    };
    stage.addEventListener('pointermove', move);
    stage.addEventListener('pointerup', end);
    stage.addEventListener('pointercancel', end);
  });

  frame.addEventListener('keydown', (event) => {
    const step = event.ctrlKey ? 0.01 : 0.05;
    const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key] ?? [0, 0];
    if (event.key === 'Escape' && !isWhole(crop)) {
      event.preventDefault();
      event.stopPropagation();
      onstart?.();
      set(WHOLE);
    }
    if (!dx && !dy) return;
    event.preventDefault();
    event.stopPropagation();
    onstart?.();
    const at = event.target.dataset?.at;
    if (at) set(pulled(crop, at, dx, dy));
    else if (event.shiftKey) set(pulled(crop, 'se', dx, dy));
    else set({ ...crop, x: crop.x + dx, y: crop.y + dy });
  });

  part.addEventListener('change', () => { onstart?.(); set(PARTS[part.value][1]); });
  draw();

  return {
    element,
    img,
    tools,
    /** Shows a part without telling about it. */
    show(next) { set(next ?? WHOLE, false); },
    /** Whether there is a picture to cut from. */
    enable(yes) { element.classList.toggle('no-picture', !yes); frame.hidden = !yes; part.hidden = !yes; },
  };
}
