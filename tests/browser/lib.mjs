/** What every browser test needs: a page, faults to set, drops and pastes, axe, screenshots. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
// Long enough for a busy machine; nothing waits so long that works.
const WAIT = 60_000;

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });

/** @type {{name: string, tiers: string[], run: (t: any) => Promise<void>}[]} */
export const tests = [];
/**
 * Declares a test. `tiers`: `mock`, `real` or both.
 * @param {string} name
 * @param {string[]} tiers
 * @param {(t: any) => Promise<void>} run what it does with what `bench` gives
 * @param {{width?: number, height?: number, touch?: boolean}} [device]
 */
export const test = (name, tiers, run, device = {}) => tests.push({ name, tiers, run, device });

/** A fresh browser context with what a test works with. */
export async function bench(browser, target, { shots, scheme = 'light', width = 1360, height = 860, touch = false } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, hasTouch: touch, isMobile: touch, reducedMotion: 'reduce', acceptDownloads: false });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT);
  const wrong = [];
  page.on('pageerror', (error) => wrong.push(`error in the page: ${error.stack ?? error}`));
  page.on('console', (message) => { if (/Content Security Policy|Refused to/i.test(message.text())) wrong.push(message.text()); });
  const tally = { axe: 0 };

  const t = {
    page, context, target, mock: target.mock, tally, tier: target.tier, names: target.names,
    async close() {
      await context.close();
      assert.deepEqual(wrong, [], 'errors in the page');
    },
    /** Opens the page and waits for the first pictures. */
    async open(hash = '', ready = '.tile img:not(.loading)') {
      await page.goto(`${target.url}${hash}`);
      if (ready) await page.locator(ready).first().waitFor();
    },
    /** Sets faults, delays and the like of the mock; answers what was asked of it since. */
    async set(body) {
      const answer = await fetch(new URL('mock', target.url), { method: 'POST', body: JSON.stringify(body) });
      return (await answer.json()).log;
    },
    async shot(name) {
      if (!shots) return;
      mkdirSync(shots, { recursive: true });
      await page.waitForTimeout(350);
      await page.screenshot({ path: join(shots, `${name}.png`) });
      if (!name.endsWith('-light') && !name.endsWith('-dark')) {
        await page.emulateMedia({ colorScheme: 'dark' });
        await page.screenshot({ path: join(shots, 'dark', `${name}.png`) });
        await page.emulateMedia({ colorScheme: 'light' });
      }
    },
    /** axe-core over what is shown, light and dark: nothing serious or critical. */
    async axe(where) {
      await page.evaluate(AXE);
      const now = await page.evaluate(() => (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'));
      const schemes = await page.evaluate(() => document.documentElement.dataset.theme) ? [now] : ['light', 'dark'];
      for (const scheme of schemes) {
        await page.emulateMedia({ colorScheme: scheme });
        await t.look(`${where}, ${scheme}`);
      }
      await page.emulateMedia({ colorScheme: now });
    },
    async look(where) {
      const found = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
      tally.axe += 1;
      const bad = found.violations.filter((v) => ['serious', 'critical'].includes(v.impact))
        .map((v) => `${where}: ${v.id} (${v.impact}): ${v.nodes.slice(0, 3).map((n) => `${n.target.join(' ')} ${n.failureSummary?.split('\n').slice(1, 3).join(' ')}`).join(' | ')}`);
      assert.deepEqual(bad, [], 'accessibility');
    },
    /** Waits until `get` gives what `fits` accepts. */
    async until(get, fits, what) {
      const end = Date.now() + WAIT;
      let last;
      while (Date.now() < end) {
        last = await get();
        if (fits(last)) return last;
        await page.waitForTimeout(40);
      }
      assert.fail(`${what}: still ${JSON.stringify(last)}`);
      return null;
    },
    summary: () => page.locator('.summary').innerText(),
    /** Ids of the tiles in view, in reading order. */
    ids: () => page.locator('.grid-row').evaluateAll((rows) => rows.flatMap((row) => [...row.children].map((tile) => Number(tile.dataset.id)))),
    /** The search is over: results are there and fresh. */
    async settled() {
      await page.locator('.search-page.asking .tile').first().waitFor();
      await page.waitForFunction(() => !document.querySelector('.grid-box.stale, .grid[aria-busy]'));
      await t.until(t.summary, (text) => /\d/.test(text), 'the count of results');
    },
    /** Bytes of a picture of the collection, as a file someone has. */
    async file(id = 5) {
      const name = await page.evaluate(() => new URLSearchParams(location.hash.split('?')[1]).get('c'));
      const collection = name ?? target.names.collection;
      const answer = await fetch(new URL(`api/v1/collections/${collection}/images/${id}/thumbnail?size=640`, target.url));
      assert.equal(answer.status, 200);
      return Buffer.from(await answer.arrayBuffer());
    },
    /** Drops a file on an element, as from the desktop. */
    async drop(selector, bytes, name = 'mine.png', type = 'image/png') {
      await page.evaluate(async ({ selector, data, name, type }) => {
        const target = document.querySelector(selector);
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type }));
        for (const kind of ['dragenter', 'dragover', 'drop']) {
          target.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
          await new Promise((done) => { setTimeout(done, 30); });
        }
      }, { selector, data: bytes.toString('base64'), name, type });
    },
    /** Pastes a file or a text, as with Ctrl V. */
    async paste({ bytes, text }) {
      await page.evaluate(({ data, text }) => {
        const transfer = new DataTransfer();
        if (data) transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], 'pasted.png', { type: 'image/png' }));
        if (text) transfer.setData('text/plain', text);
        document.activeElement.dispatchEvent(new ClipboardEvent('paste', { bubbles: true, cancelable: true, clipboardData: transfer }));
      }, { data: bytes?.toString('base64'), text });
    },
    hash: () => new URL(page.url()).hash,
  };
  return t;
}
