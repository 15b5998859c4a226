/** Drawn pictures for the mock: small landscapes from a seed, as PNG. */
import { deflateSync } from 'node:zlib';

export const THEMES = ['beach', 'mountains', 'forest', 'city', 'flowers', 'night'];

/** A repeatable stream of numbers in [0, 1). */
export function random(seed) {
  let a = (seed * 2654435761 + 12345) >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const mix = (a, b, t) => [0, 1, 2].map((i) => a[i] + (b[i] - a[i]) * t);
const shade = (c, by) => c.map((v) => Math.max(0, Math.min(255, v * by)));

const SKIES = {
  beach: [[96, 170, 222], [238, 226, 198]], mountains: [[78, 120, 176], [226, 208, 204]], forest: [[150, 186, 190], [226, 230, 208]],
  city: [[92, 96, 140], [244, 178, 130]], flowers: [[168, 208, 226], [236, 240, 226]], night: [[10, 14, 38], [48, 52, 98]],
};
const GROUNDS = { beach: [214, 186, 138], mountains: [88, 100, 124], forest: [58, 96, 68], city: [54, 52, 72], flowers: [116, 156, 84], night: [20, 24, 44] };

/** What colour a picture has at (u, v) in [0, 1]². */
function scene(theme, seed, aspect) {
  const r = random(seed);
  const [top, low] = SKIES[theme].map((c) => shade(c, 0.85 + r() * 0.3));
  const ground = shade(GROUNDS[theme], 0.8 + r() * 0.4);
  const sun = { x: 0.15 + r() * 0.7, y: 0.14 + r() * 0.26, r: 0.04 + r() * 0.05 };
  const horizon = 0.5 + r() * 0.18;
  const waves = Array.from({ length: 4 }, () => ({ f: 2 + r() * 9, a: 0.02 + r() * 0.06, p: r() * 7 }));
  const ridge = (u, k) => waves.reduce((s, w) => s + Math.sin(u * w.f * (1 + k * 0.6) + w.p + k * 3) * w.a * (theme === 'mountains' ? 1.6 : 0.7), 0);
  const blocks = Array.from({ length: 14 }, (_, i) => ({ x: i / 14, h: 0.1 + r() * 0.32, lit: r() }));
  const spots = Array.from({ length: theme === 'flowers' ? 46 : theme === 'night' ? 60 : 0 }, () => ({ x: r(), y: r(), r: 0.008 + r() * 0.028, c: [200 + r() * 55, 70 + r() * 150, 90 + r() * 130] }));
  return (u, v) => {
    let c = mix(top, low, Math.min(1, v / horizon));
    const d = Math.hypot((u - sun.x) * aspect, v - sun.y);
    if (d < sun.r) c = theme === 'night' ? [232, 232, 214] : [255, 244, 214];
    else c = mix(c, [255, 240, 210], Math.max(0, 0.42 - d * 1.3) * (theme === 'night' ? 0.35 : 1));
    if (theme === 'night') for (const s of spots) if (s.y < 0.6 && Math.hypot((u - s.x) * aspect, v - s.y * 0.9) < s.r * 0.13) c = [240, 240, 255];
    if (theme === 'city' && v > horizon - 0.34) {
      const b = blocks[Math.min(13, Math.floor(u * 14))];
      if (v > horizon - b.h) {
        const window = (Math.floor(u * 84) % 2 === 0) && (Math.floor(v * 60) % 2 === 0) && Math.sin(u * 977 + v * 613) > 0.2;
        c = window ? [250, 206, 120] : shade(ground, 0.75 + b.lit * 0.7);
      }
    }
    for (let k = 0; k < 3; k += 1) {
      const line = horizon + k * 0.12 + ridge(u, k);
      if (v > line) c = mix(shade(ground, 1.25 - k * 0.22), low, Math.max(0, 0.35 - k * 0.17));
      if (theme === 'mountains' && k === 0 && v > line && v < line + 0.05 + ridge(u, 2) * 0.2) c = [236, 240, 246];
    }
    if (theme === 'beach' && v > horizon && v < horizon + 0.16) c = mix([62, 142, 176], [170, 214, 216], (v - horizon) / 0.16 + Math.sin(u * 60 + v * 200) * 0.06);
    if (theme === 'forest') { const t = (u * 17) % 1; const h = 0.18 + Math.sin(Math.floor(u * 17) * 12.9 + seed) * 0.1; const y = horizon + 0.16 - h * (1 - Math.abs(t - 0.5) * 2); if (v > y && v < horizon + 0.22) c = shade(ground, 0.62 + ((Math.floor(u * 17) * 37) % 10) / 30); }
    if (theme === 'flowers') for (const s of spots) if (s.y > 0.3 && Math.hypot((u - s.x) * aspect, (v - (horizon + s.y * 0.45)) * 1.2) < s.r) c = s.c;
    return c;
  };
}

const CRC = Array.from({ length: 256 }, (_, n) => { let c = n; for (let k = 0; k < 8; k += 1) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1; return c >>> 0; });
function chunk(kind, data) {
  const out = Buffer.alloc(12 + data.length);
  out.writeUInt32BE(data.length, 0);
  out.write(kind, 4, 'latin1');
  data.copy(out, 8);
  let crc = 0xffffffff;
  for (const byte of out.subarray(4, 8 + data.length)) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  out.writeUInt32BE((crc ^ 0xffffffff) >>> 0, 8 + data.length);
  return out;
}

/** A PNG of `width` x `height` of a function from (u, v) to a colour. */
export function png(width, height, colour) {
  const raw = Buffer.alloc((width * 3 + 1) * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const c = colour((x + 0.5) / width, (y + 0.5) / height);
      const at = y * (width * 3 + 1) + 1 + x * 3;
      raw[at] = c[0]; raw[at + 1] = c[1]; raw[at + 2] = c[2];
    }
  }
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2, 0, 0, 0], 8);
  return Buffer.concat([Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]), chunk('IHDR', head), chunk('IDAT', deflateSync(raw, { level: 2 })), chunk('IEND', Buffer.alloc(0))]);
}

const drawn = new Map();
/** The picture of an item, its longer side `size`. */
export function picture(item, size) {
  const name = `${item.seed}/${item.theme}/${item.edit}/${size}/${item.width}`;
  if (!drawn.has(name)) {
    const scale = size / Math.max(item.width, item.height);
    const colour = scene(item.theme, item.seed, item.width / item.height);
    const edited = { mirrored: (u, v) => colour(1 - u, v), darker: (u, v) => shade(colour(u, v), 0.8), cropped: (u, v) => colour(0.1 + u * 0.8, 0.1 + v * 0.8) }[item.edit] ?? colour;
    drawn.set(name, png(Math.round(item.width * scale), Math.round(item.height * scale), edited));
    if (drawn.size > 3000) drawn.delete(drawn.keys().next().value);
  }
  return drawn.get(name);
}
