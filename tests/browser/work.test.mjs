/** Reviewing duplicates, and building a data set through to its export. */
import assert from 'node:assert/strict';
import { test } from './lib.mjs';

const BOTH = ['mock', 'real'];

test('duplicates: looked for, decided, undone, dry run, taken out', BOTH, async (t) => {
  await t.open('#/duplicates', '.start-form');
  await t.shot('duplicates-start');
  await t.axe('duplicates, start');
  await t.page.locator('.start-form button[type=submit]').click();
  await t.page.locator('.group-entry').first().waitFor({ timeout: 400_000 });
  await t.page.locator('.member-picture img:not(.loading)').nth(1).waitFor();
  const groups = await t.page.locator('.group-entry').count();
  assert.ok(groups > 1);
  assert.match(await t.page.locator('.member').first().innerText(), /Reference/);
  await t.shot('duplicates');
  await t.axe('duplicates');
  // Compared in four ways.
  await t.page.keyboard.press('c');
  await t.page.locator('.compare-stage img').nth(1).waitFor();
  await t.shot('compare');
  await t.axe('compare');
  await t.page.locator('.tab', { hasText: 'Swap' }).click();
  await t.page.locator('.compare-tools button').click();
  await t.page.locator('.tab', { hasText: 'Slide' }).click();
  await t.page.locator('.tab', { hasText: 'Difference' }).click();
  await t.until(() => t.page.locator('.compare-stage p').innerText(), (text) => /difference|different/i.test(text), 'the difference');
  await t.shot('difference');
  await t.axe('difference');
  await t.page.keyboard.press('Escape');
  // Decided by button and by key, and taken back.
  const decided = () => t.page.locator('.decision-bar strong').innerText();
  await t.page.locator('.member .fate').nth(1).click();
  await t.page.locator('.member .fate').nth(1).click();
  await t.page.locator('.decide').click();
  await t.until(decided, (text) => /^1 of/.test(text), 'one decided');
  await t.page.locator('.not-duplicates').click();
  await t.until(decided, (text) => /^2 of/.test(text), 'two decided');
  await t.page.locator('button', { hasText: 'Undo last' }).click();
  await t.until(decided, (text) => /^1 of/.test(text), 'undone');
  assert.equal(await t.page.locator('.group-entry.not_duplicate').count(), 0);
  await t.page.locator('.review-tools select').selectOption('largest');
  await t.page.locator('.rest').click();
  await t.until(decided, (text) => !/^[01] of/.test(text), 'the rest decided');
  const all = await decided();
  await t.page.locator('button', { hasText: 'Undo last' }).click();
  await t.until(decided, (text) => text !== all, 'one taken back');
  const before = await t.page.evaluate(async (address) => (await (await fetch(address)).json()).images, new URL(`api/v1/collections/${t.names.collection}`, t.target.url).href);
  await t.page.locator('button', { hasText: 'Dry run' }).click();
  await t.page.locator('dialog[open] .thumbs img').first().waitFor();
  await t.shot('dry-run');
  await t.axe('dry run');
  const n = await t.page.locator('dialog[open] .thumbs img').count();
  await t.page.locator('dialog[open] .danger').click();
  await t.until(() => t.page.evaluate(async (address) => (await (await fetch(address)).json()).images, new URL(`api/v1/collections/${t.names.collection}`, t.target.url).href), (images) => images === before - n, `${n} fewer pictures`);
});

test('a data set from selected pictures, judged, exported', BOTH, async (t) => {
  await t.open('#/sets', '.sets .page-head');
  await t.page.locator('.state, .run-card').first().waitFor();
  await t.shot('sets-empty');
  await t.axe('data sets');
  await t.open('#/search');
  await t.page.locator('button', { hasText: 'Select' }).first().click();
  for (const i of [0, 2, 4]) await t.page.locator('.tile .picture').nth(i).click();
  assert.match(await t.page.locator('.selection-bar').innerText(), /3 pictures selected/);
  await t.shot('selecting');
  await t.axe('selecting');
  await t.page.locator('.selection-bar .primary').click();
  await t.page.locator('#set-name').fill(`browser-${Date.now() % 1e7}`);
  await t.shot('new-set');
  await t.axe('new data set');
  await t.page.locator('.start-form button[type=submit]').click();
  await t.page.locator('.accounting tbody tr').first().waitFor({ timeout: 120_000 });
  await t.page.locator('.set-page .tile').first().waitFor();
  await t.page.locator('.set-page .tile img:not(.loading)').first().waitFor();
  await t.shot('set');
  await t.axe('data set');
  // The last word: out, back, out again.
  await t.page.locator('.tile .mark.reject').first().click();
  await t.until(() => t.page.locator('.decision-bar').innerText(), (text) => /1 taken out/.test(text), 'taken out');
  await t.page.locator('button', { hasText: 'Undo last' }).click();
  await t.until(() => t.page.locator('.decision-bar').innerText(), (text) => /No decisions|0 /.test(text), 'undone');
  await t.page.locator('.tile .mark.reject').first().click();
  await t.page.locator('.tab', { hasText: 'Left out' }).click();
  await t.until(t.summary, (text) => /left out/.test(text), 'what was left out');
  await t.page.locator('.tile .picture').first().click();
  await t.until(() => t.page.locator('.why').innerText(), (text) => text.length > 20, 'the reason');
  await t.shot('reason');
  await t.axe('reason');
  await t.page.keyboard.press('Escape');
  await t.page.locator('button', { hasText: 'Export' }).first().click();
  await t.page.locator('#export-format').selectOption('jsonl');
  await t.page.locator('dialog[open] button[type=submit]').click();
  await t.page.locator('.export-done').waitFor({ timeout: 60_000 });
  assert.match(await t.page.locator('.export-done').innerText(), /pictures? exported/);
  await t.shot('exported');
  await t.axe('exported');
});

test('a data set from uploaded pictures', ['mock'], async (t) => {
  await t.open('#/sets/new', '.start-form');
  await t.page.locator('.drop-area input').setInputFiles([1, 2].map((i) => ({ name: `mine-${i}.png`, mimeType: 'image/png', buffer: Buffer.from(`\x89PNG${i}`, 'latin1') })));
  await t.page.locator('.thumbs li').nth(1).waitFor();
  await t.page.locator('#set-name').fill('from-uploads');
  await t.page.locator('.start-form button[type=submit]').click();
  await t.page.locator('.accounting tbody tr').first().waitFor();
});

test('the same page below a base path', ['mock'], async (t) => {
  const { startMock } = await import('./mock/server.mjs');
  const below = await startMock({ base: '/some/where', images: 40 });
  await t.page.goto(below.url);
  await t.page.locator('.tile img:not(.loading)').first().waitFor();
  await t.page.locator('.tile .mark.similar').first().click();
  await t.settled();
  await below.close();
});

test('a reader sees no buttons that write', ['mock'], async (t) => {
  await t.set({ role: 'read' });
  await t.open('#/sets', '.sets .state, .sets .run-card');
  assert.equal(await t.page.locator('button', { hasText: 'New data set' }).count(), 0);
  await t.open('#/duplicates', '.start-form');
  assert.equal(await t.page.locator('.start-form button[type=submit]').isDisabled(), true);
  await t.axe('reader');
  await t.set({ role: 'admin' });
});
