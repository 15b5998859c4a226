/** What goes wrong, and how it is told. */
import assert from 'node:assert/strict';
import { test } from './lib.mjs';

test('too large a picture: said before it is sent, and a smaller copy offered', ['mock'], async (t) => {
  await t.set({ limits: { max_upload_bytes: 60_000, max_pixels: 1e8, max_k: 1000 } });
  await t.open();
  await t.set({});
  const large = Buffer.concat([await t.file(5), Buffer.alloc(5_000_000)]);
  await t.drop('main', large);
  await t.page.locator('.state.error').waitFor();
  assert.match(await t.page.locator('.state.error').innerText(), /too large/);
  assert.equal((await t.set({})).filter((each) => each.what === 'search').length, 0, 'nothing was sent');
  await t.shot('too-large');
  await t.axe('too large');
  await t.set({ limits: { max_upload_bytes: 20_000_000, max_pixels: 1e8, max_k: 1000 } });
  await t.page.reload();
  await t.page.locator('.tile').first().waitFor();
  await t.set({ faults: { search: { status: 413, code: 'image_too_large', title: 'The picture is too large', detail: 'It has 900 megapixels; at most 100 are taken.', times: 1 } } });
  await t.drop('main', await t.file(5));
  await t.page.locator('.state.error').waitFor();
  await t.page.locator('button', { hasText: 'smaller copy' }).click();
  await t.settled();
});

test('429: waits as long as it was told, and goes on by itself', ['mock'], async (t) => {
  await t.open();
  await t.set({ faults: { search: { status: 429, code: 'overloaded', title: 'Too much to do', detail: 'The server is at its limit.', times: 1, headers: { 'retry-after': '5' } } } });
  await t.page.locator('.tile .mark.similar').first().click();
  await t.page.locator('.state.error').waitFor();
  assert.match(await t.page.locator('.state.error + p').innerText(), /again in [1-5] s/);
  await t.shot('busy');
  await t.axe('429');
  await t.settled();
});

test('500 with a request number', ['mock'], async (t) => {
  await t.open();
  await t.set({ faults: { search: { status: 500, code: 'internal', title: 'Something went wrong' } } });
  await t.page.locator('.tile .mark.similar').first().click();
  await t.page.locator('.state.error').waitFor();
  assert.match(await t.page.locator('.state.error').innerText(), /mock-1/);
  await t.set({ faults: {} });
  await t.page.locator('button', { hasText: 'Try again' }).click();
  await t.settled();
});

test('a slow search is explained and can be stopped', ['mock'], async (t) => {
  await t.open();
  await t.set({ delays: { search: 60_000 } });
  await t.page.locator('.tile .mark.similar').first().click();
  await t.page.locator('.slow:not([hidden])').waitFor();
  await t.shot('slow');
  await t.axe('slow');
  await t.page.locator('.slow button').click();
  await t.until(t.summary, (text) => text === 'Stopped.', 'stopped');
  await t.set({ delays: {} });
});

test('the server goes away and comes back', ['mock'], async (t) => {
  await t.open('#/search?c=photos&like=id%3A4', '.search-page.asking .tile');
  await t.page.route('**/api/**', (route) => route.abort('connectionrefused'));
  await t.page.locator('.crop-tools select').selectOption('middle');
  await t.page.locator('.state.error').waitFor();
  assert.match(await t.page.locator('#notice').innerText(), /does not answer/);
  await t.shot('server-down');
  await t.axe('server down');
  await t.page.unroute('**/api/**');
  await t.settled();
  await t.until(() => t.page.locator('.notice.error').count(), (n) => n === 0, 'the notice is gone');
});

test('the server is not there at the start', ['mock'], async (t) => {
  await t.page.route('**/api/**', (route) => route.abort('connectionrefused'));
  await t.open('', '.state.error');
  await t.page.unroute('**/api/**');
  await t.page.locator('.tile').first().waitFor();
});

test('a file that is no picture', ['mock', 'real'], async (t) => {
  await t.open();
  await t.drop('main', Buffer.from('not a picture at all'), 'x.jpg', 'image/jpeg');
  await t.page.locator('.state.error').waitFor();
  assert.match(await t.page.locator('.state.error').innerText(), /not a picture/i);
  await t.drop('main', Buffer.from('words'), 'notes.txt', 'text/plain');
  assert.match(await t.page.locator('.toast').innerText(), /not a picture/);
});

test('a key is asked for, kept in the tab, and pictures come with it', ['mock'], async (t) => {
  await t.set({ key: 'akin_1_secret' });
  await t.open('', 'dialog[open] #key');
  await t.shot('key');
  await t.axe('key');
  await t.page.locator('#key').fill('akin_1_secret');
  await t.page.keyboard.press('Enter');
  await t.page.locator('.tile img:not(.loading)').first().waitFor();
  assert.equal(await t.page.locator('.tile img').first().evaluate((img) => img.src.startsWith('blob:')), true);
  assert.deepEqual(await t.page.evaluate(() => [sessionStorage.getItem('akin-key'), Object.values(localStorage).join().includes('secret'), document.cookie]), ['akin_1_secret', false, '']);
  await t.set({ key: '' });
});

test('no collection, nothing found, limited servers', ['mock'], async (t) => {
  await t.set({ model: null, servable: false, extra: { degraded: true } });
  await t.open();
  assert.match(await t.page.locator('#notice').innerText(), /No model is loaded/);
  await t.shot('degraded');
  await t.axe('degraded');
  await t.set({ model: { name: 'akin-ti14', dim: 24 }, servable: true, extra: {} });
  await t.open('#/search?c=photos&where=width+%3E+99999', '.state');
  assert.match(await t.page.locator('.state').innerText(), /Nothing passes/);
  await t.shot('nothing-passes');
  await t.axe('nothing');
  await t.page.goto('about:blank');
  await t.page.route('**/api/v1/status', async (route) => { const answer = await route.fetch(); const body = await answer.json(); await route.fulfill({ json: { ...body, collections: [] } }); });
  await t.open('', '.state');
  assert.match(await t.page.locator('.state').innerText(), /No pictures yet/);
  await t.shot('empty');
  await t.axe('empty');
});

test('reading pictures is told above the page, with what failed', ['mock'], async (t) => {
  await t.set({ index: 3000 });
  await t.open();
  await t.until(() => t.page.locator('#notice').innerText(), (text) => /of 3,000.*a second.*left/.test(text), 'the notice');
  await t.shot('indexing');
  await t.page.locator('.notice a').click();
  await t.page.locator('.job[data-state=running]').waitFor();
  await t.page.locator('.failed summary').first().click();
  assert.match(await t.page.locator('.failed li').first().innerText(), /broken\.jpg/);
  await t.shot('activity');
  await t.axe('activity');
  await t.page.locator('.job button', { hasText: 'Stop' }).first().click();
  await t.page.locator('.job[data-state=cancelled]').waitFor();
});
