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
  // The space of what was taken out is given back.
  await t.open('#/activity', '.space:not([hidden])');
  assert.match(await t.page.locator('.space').innerText(), new RegExp(`about ${n} pictures? taken out`));
  await t.shot('space');
  await t.axe('space');
  await t.page.locator('.space .button').click();
  await t.until(() => t.page.locator('.job').first().innerText(), (text) => /given back/.test(text), 'the space given back');
  assert.equal(await t.page.locator('.space').isHidden(), true);
});

test('groups in pages: kinds, marks and figures stay right', ['mock'], async (t) => {
  await t.set({ extra: { page: 3 }, images: 240 });
  await t.open('#/duplicates', '.start-form');
  await t.page.locator('.start-form button[type=submit]').click();
  await t.page.locator('.group-entry').first().waitFor();
  const tab = (name) => t.page.locator('.tab', { hasText: name });
  const figure = async (name) => Number((await tab(name).innerText()).match(/\d+/)[0]);
  const [all, subjects] = [await figure('All duplicates'), await figure('Same subject')];
  const decided = () => t.page.locator('.decision-bar strong').innerText();
  assert.ok(subjects > 0 && all > 4);
  await t.until(decided, (text) => text === `0 of ${all} decided`, 'all groups counted');
  // What was marked by hand is so after a look at another tab.
  await t.page.locator('.member .fate').nth(1).click();
  assert.match(await t.page.locator('.decide').innerText(), /let 1 go|Keep all/);
  const marked = await t.page.locator('.decide').innerText();
  await tab('Same subject').click();
  await t.until(decided, (text) => text === `0 of ${subjects} decided`, 'the other tab');
  assert.equal(await t.page.locator('.decide').innerText(), 'Keep all', 'pictures of one subject stay');
  await tab('All duplicates').click();
  await t.until(() => t.page.locator('.decide').innerText(), (text) => text === marked, 'the mark');
  // All of the rest, those of pages that were not looked at too.
  await t.page.locator('.review-tools select').selectOption('largest');
  await t.page.locator('.rest').click();
  await t.until(decided, (text) => text === `${all} of ${all} decided`, 'the rest decided');
  const words = await t.page.locator('.decision-bar p').innerText();
  await t.page.reload();
  await t.until(() => t.page.locator('.decision-bar p').innerText(), (text) => text === words, 'the same figures after a reload');
  await tab('Same subject').click();
  await t.until(decided, (text) => text === `0 of ${subjects} decided`, 'no picture of one subject is decided about');
  await t.set({ extra: {} });
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

test('a picture is taken out from its viewer, once that is meant', ['mock'], async (t) => {
  await t.open();
  const id = (await t.ids())[2];
  await t.page.locator('.tile .picture').nth(2).click();
  await t.page.locator('.viewer[open] .take-away').click();
  await t.shot('take-out');
  await t.axe('take out');
  await t.page.locator('dialog.small button', { hasText: 'Keep it' }).click();
  assert.equal(await t.page.locator('.viewer[open]').count(), 1);
  await t.page.locator('.viewer[open] .take-away').click();
  await t.page.locator('dialog.small .danger').click();
  await t.until(t.ids, (ids) => ids.length > 0 && !ids.includes(id), 'the picture is gone');
  assert.equal(await t.page.locator('.viewer[open]').count(), 0);
  await t.set({ images: 240 });
});
