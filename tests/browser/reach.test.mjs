/** Keyboard alone, phones, colours, and very many pictures. */
import assert from 'node:assert/strict';
import { test } from './lib.mjs';

const BOTH = ['mock', 'real'];

test('a whole journey by keyboard alone', BOTH, async (t) => {
  await t.open();
  const press = (key) => t.page.keyboard.press(key);
  const focused = (what) => t.page.evaluate((selector) => document.activeElement?.closest(selector) !== null && document.activeElement !== document.body, what);
  await press('/');
  assert.equal(await t.page.evaluate(() => document.activeElement.id), 'query');
  await press('Escape');
  await t.page.evaluate(() => document.activeElement.blur());
  await press('Control+k');
  assert.equal(await t.page.evaluate(() => document.activeElement.id), 'query');
  // From the box by Tab into the pictures.
  for (let i = 0; i < 40 && !(await focused('.tile')); i += 1) await press('Tab');
  assert.ok(await focused('.tile .picture'), 'Tab reaches the pictures');
  const at = () => t.page.evaluate(() => document.activeElement.closest('.tile')?.dataset.id);
  const first = await at();
  await press('ArrowRight');
  const second = await at();
  assert.notEqual(second, first);
  await press('ArrowDown');
  await press('ArrowUp');
  assert.equal(await at(), second);
  await press('s');
  await t.settled();
  assert.match(t.hash(), new RegExp(`id%3A${second}`));
  for (let i = 0; i < 60 && !(await focused('.tile')); i += 1) await press('Tab');
  await press('ArrowRight');
  await press('+');
  await t.until(t.hash, (hash) => (hash.match(/[?&]like=/g) ?? []).length === 2, 'marked by key');
  await t.settled();
  await t.page.evaluate(() => document.querySelector('.tile .picture').focus());
  await press('ArrowRight');
  const opened = await at();
  await press('Enter');
  await t.page.locator('.viewer[open]').waitFor();
  await press('ArrowRight');
  await t.until(t.hash, (hash) => /view=/.test(hash) && !hash.endsWith(`view=${opened}`), 'the next picture');
  await press('Escape');
  await t.until(() => t.page.locator('.viewer[open]').count(), (n) => n === 0, 'closed');
  await t.until(() => focused('.tile .picture'), Boolean, 'focus back on a picture');
  await press('?');
  await t.page.locator('dialog[open] .keys').waitFor();
  await t.shot('help');
  await t.axe('help');
  await press('Escape');
  await t.until(() => t.page.locator('dialog[open]').count(), (n) => n === 0, 'help closed');
  await press('x');
  await t.page.locator('.selection-bar:not([hidden])').waitFor();
  assert.match(await t.page.locator('.selection-bar').innerText(), /1 picture selected/);
});

test('what a screen reader is told', BOTH, async (t) => {
  await t.open();
  await t.page.locator('.tile .mark.similar').first().click();
  await t.settled();
  await t.until(() => t.page.locator('#announcer').innerText(), (text) => /Found .*pictures?, closest first/.test(text), 'the announcement');
  assert.equal(await t.page.locator('[role=grid] [role=row] [role=gridcell]').count() > 3, true);
  assert.match(await t.page.locator('.tile .picture').nth(1).getAttribute('aria-label'), /, .*closer than/);
});

test('the phone', BOTH, async (t) => {
  await t.open();
  await t.shot('phone-home');
  await t.axe('phone, first screen');
  await t.page.locator('.tile .mark.similar').first().click();
  await t.settled();
  assert.equal(await t.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, 'nothing sticks out');
  await t.shot('phone-results');
  await t.axe('phone, results');
  const targets = await t.page.locator('button:visible, a:visible, select:visible').evaluateAll((all) => all.filter((e) => { const r = e.getBoundingClientRect(); return r.width > 0 && (r.width < 24 || r.height < 24) && !e.classList.contains('skip'); }).map((e) => e.outerHTML.slice(0, 80)));
  assert.deepEqual(targets, [], 'targets of at least 24 pixels');
  await t.page.locator('.refine').click();
  await t.page.locator('#cut').waitFor();
  await t.shot('phone-refine');
  await t.page.locator('.tile .picture').first().click();
  await t.page.locator('.viewer[open]').waitFor();
  await t.page.waitForTimeout(400);
  await t.shot('phone-viewer');
  await t.axe('phone, viewer');
  await t.page.locator('.viewer-top button').click();
  await t.page.locator('.nav a', { hasText: 'Duplicates' }).click();
  await t.page.locator('.start-form').waitFor();
  assert.equal(await t.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, 'nothing sticks out');
  await t.shot('phone-duplicates');
}, { width: 390, height: 844, touch: true });

test('the crop by finger, on a phone', BOTH, async (t) => {
  await t.open();
  await t.page.locator('.tile .mark.similar').first().tap();
  await t.settled();
  const stage = await t.page.locator('.crop-stage').boundingBox();
  const finger = await t.context.newCDPSession(t.page);
  const at = (u, v) => [{ x: stage.x + stage.width * u, y: stage.y + stage.height * v }];
  await finger.send('Input.dispatchTouchEvent', { type: 'touchStart', touchPoints: at(0.2, 0.2) });
  for (let i = 1; i <= 6; i += 1) await finger.send('Input.dispatchTouchEvent', { type: 'touchMove', touchPoints: at(0.2 + i * 0.08, 0.2 + i * 0.09) });
  await finger.send('Input.dispatchTouchEvent', { type: 'touchEnd', touchPoints: [] });
  await t.until(t.hash, (hash) => /crop=0\.\d/.test(hash), 'the crop');
  assert.equal(await t.page.evaluate(() => scrollY), 0, 'the page did not scroll under the finger');
  await t.settled();
  await t.shot('phone-crop');
}, { width: 390, height: 844, touch: true });

test('dark, by the system and by choice', BOTH, async (t) => {
  await t.page.emulateMedia({ colorScheme: 'dark' });
  await t.open();
  await t.shot('home-dark');
  await t.axe('dark, first screen');
  await t.page.locator('.tile .mark.similar').nth(2).click();
  await t.settled();
  await t.shot('results-dark');
  await t.axe('dark, results');
  await t.page.locator('.tile .picture').nth(1).click();
  await t.until(() => t.page.locator('.strip-item img').count(), (n) => n > 2, 'neighbours');
  await t.shot('viewer-dark');
  await t.axe('dark, viewer');
  await t.page.keyboard.press('Escape');
  await t.page.locator('.theme').click();
  assert.equal(await t.page.evaluate(() => document.documentElement.dataset.theme), 'light');
  const light = await t.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await t.page.locator('.theme').click();
  assert.equal(await t.page.evaluate(() => document.documentElement.dataset.theme), 'dark');
  assert.notEqual(await t.page.evaluate(() => getComputedStyle(document.body).backgroundColor), light);
  await t.page.reload();
  await t.page.locator('.tile').first().waitFor();
  assert.equal(await t.page.evaluate(() => document.documentElement.dataset.theme), 'dark', 'the choice is kept');
});

test('the viewer: what is known, what is near, the next one', BOTH, async (t) => {
  await t.open();
  await t.page.locator('.tile .mark.similar').nth(1).click();
  await t.settled();
  await t.page.locator('.tile .picture').nth(1).click();
  await t.until(() => t.page.locator('.strip-item img').count(), (n) => n > 2, 'neighbours');
  assert.match(await t.page.locator('.facts').innerText(), /pixels/);
  assert.match(await t.page.locator('.viewer-meaning').innerText(), /similarity/);
  await t.until(() => t.page.locator('.viewer-img').evaluate((img) => img.naturalWidth), (w) => w > 100, 'the picture');
  await t.shot('viewer-light');
  await t.axe('viewer');
  const shared = t.page.url();
  await t.page.locator('.turn.next').click();
  await t.until(() => t.page.url(), (url) => url !== shared, 'the next');
  await t.page.goBack();
  await t.until(() => t.page.locator('.viewer[open]').count(), (n) => n === 0, 'back closes it');
  await t.page.goto('about:blank');
  await t.page.goto(shared);
  await t.page.locator('.viewer[open]').waitFor();
});

test('ten thousand results, scrolled to the end', ['mock'], async (t) => {
  await t.set({ images: 10_000, flat: true });
  await t.open('#/search?c=photos&like=id%3A4&fold=0', '.search-page.asking .tile');
  await t.until(t.summary, (text) => /10,000/.test(text), 'the count');
  let most = 0;
  const seen = new Set();
  const end = Date.now() + 120_000;
  let height = 0;
  let still = 0;
  while (Date.now() < end && still < 12) {
    await t.page.evaluate(() => scrollBy(0, innerHeight * 4));
    await t.page.waitForTimeout(40);
    const now = await t.page.evaluate(() => ({ tiles: document.querySelectorAll('.tile').length, height: document.documentElement.scrollHeight, bottom: scrollY + innerHeight, ids: [...document.querySelectorAll('.tile')].map((e) => e.dataset.id) }));
    most = Math.max(most, now.tiles);
    now.ids.forEach((id) => seen.add(id));
    still = now.height === height && now.bottom >= now.height - 4 ? still + 1 : 0;
    height = now.height;
  }
  const rows = await t.page.locator('.grid').evaluate((grid) => ({ rows: Number(grid.getAttribute('aria-rowcount')), columns: Number(grid.getAttribute('aria-colcount')) }));
  assert.equal(rows.rows, Math.ceil(10_000 / rows.columns), 'all rows');
  assert.ok(most < 120, `at most ${most} tiles in the document`);
  // A long frame is one in which the main thread was busy for over 100 ms while scrolling.
  const frames = await t.page.evaluate(async () => {
    const gaps = [];
    let last = performance.now();
    for (let i = 0; i < 60; i += 1) {
      scrollBy(0, -300);
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      gaps.push(now - last);
      last = now;
    }
    return gaps.sort((a, b) => a - b);
  });
  console.log(`      10,000 results: ${rows.rows} rows, at most ${most} tiles at once, ${seen.size} seen; frame while scrolling: median ${frames[30].toFixed(1)} ms, worst ${frames[59].toFixed(1)} ms`);
  await t.page.locator('.tile .picture').first().focus();
  await t.page.keyboard.press('Control+End');
  await t.until(() => t.page.evaluate(() => document.activeElement.closest('.grid-row')?.getAttribute('aria-rowindex')), (n) => Number(n) === rows.rows, 'the last row by key');
  await t.shot('ten-thousand');
  await t.set({ images: 240, flat: false });
});
