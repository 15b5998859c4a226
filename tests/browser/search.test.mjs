/** Searching: every way in, refining, and the way back. */
import assert from 'node:assert/strict';
import { test } from './lib.mjs';

const BOTH = ['mock', 'real'];

test('the first screen explains itself', BOTH, async (t) => {
  await t.open();
  assert.equal(await t.page.locator('h1').innerText(), 'Find pictures that look alike');
  assert.match(await t.page.locator('.hint').innerText(), /not saved/);
  await t.shot('home-light');
  await t.axe('first screen');
});

test('a dropped file is searched with, and the address brings it back', BOTH, async (t) => {
  await t.open();
  await t.drop('main', await t.file(5));
  await t.settled();
  assert.match(t.hash(), /like=query/);
  assert.equal(await t.page.locator('.crop-stage img').evaluate((img) => img.src.startsWith('blob:')), true);
  await t.shot('results-light');
  await t.axe('results');
  const before = await t.ids();
  await t.page.reload();
  await t.settled();
  assert.deepEqual((await t.ids()).slice(0, 4), before.slice(0, 4));
  await t.until(() => t.page.locator('.crop-stage img').evaluate((img) => img.naturalWidth), (w) => w > 0, 'the preview after a reload');
});

test('a pasted picture', BOTH, async (t) => {
  await t.open();
  await t.paste({ bytes: await t.file(9) });
  await t.settled();
  assert.match(t.hash(), /like=query/);
  // The mock knows pictures only by their bytes.
  if (t.tier === 'real') assert.equal((await t.ids())[0], 9, 'itself first');
  await t.shot('pasted');
});

test('a pasted picture, then a pasted address', ['mock'], async (t) => {
  await t.open();
  await t.paste({ bytes: await t.file(9) });
  await t.settled();
  assert.match(t.hash(), /like=query/);
  await t.page.locator('.summary').click();
  await t.paste({ text: 'https://pictures.example/cat.jpg' });
  await t.until(t.hash, (hash) => /like=url%3Ahttps/.test(hash), 'the address');
  await t.settled();
  assert.match(await t.page.locator('.unseen-example').innerText(), /pictures\.example/);
});

test('a typed address, and one that is refused', BOTH, async (t) => {
  await t.open();
  await t.page.locator('#query').fill('holiday');
  await t.page.keyboard.press('Enter');
  assert.match(await t.page.locator('#query-error').innerText(), /not a web address/);
  await t.page.locator('#query').fill('http://127.0.0.1:9/secret.png');
  await t.page.keyboard.press('Enter');
  await t.page.locator('.state.error').waitFor();
  assert.match(await t.page.locator('.state.error').innerText(), /not allowed/i);
  await t.shot('url-refused');
  await t.axe('refused address');
});

test('the file button', BOTH, async (t) => {
  await t.open();
  await t.page.locator('.querybox input[type=file]').setInputFiles({ name: 'mine.png', mimeType: 'image/png', buffer: await t.file(3) });
  await t.settled();
  assert.match(t.hash(), /like=query/);
});

test('a tile dragged onto the search box', BOTH, async (t) => {
  await t.open();
  const tile = t.page.locator('.tile').nth(2);
  const id = await tile.getAttribute('data-id');
  await tile.dragTo(t.page.locator('.box'));
  await t.settled();
  assert.match(t.hash(), new RegExp(`like=id%3A${id}(&|$)`));
});

test('where a dragged picture can be put', ['mock'], async (t) => {
  await t.open('#/search?c=photos&like=id%3A4', '.search-page.asking .tile');
  await t.settled();
  const tile = await t.page.locator('.tile').nth(2).boundingBox();
  const id = await t.page.locator('.tile').nth(2).getAttribute('data-id');
  await t.page.mouse.move(tile.x + 90, tile.y + 120);
  await t.page.mouse.down();
  await t.page.mouse.move(tile.x + 120, tile.y + 160, { steps: 3 });
  await t.page.locator('.drop-places:not([hidden])').waitFor();
  const place = await t.page.locator('.drop-place[data-drop=unlike]').boundingBox();
  await t.page.mouse.move(place.x + place.width / 2, place.y + place.height / 2, { steps: 3 });
  await t.shot('dragging');
  await t.page.mouse.up();
  await t.until(t.hash, (hash) => hash.includes(`unlike=id%3A${id}`), 'less like it');
});

test('more like this, back and forward', BOTH, async (t) => {
  await t.open();
  await t.page.locator('.tile .mark.similar').nth(3).click();
  await t.settled();
  const first = t.hash();
  await t.page.locator('.tile .picture').nth(1).click();
  await t.page.locator('.viewer[open]').waitFor();
  await t.until(() => t.page.locator('.strip-item img').count(), (n) => n > 3, 'neighbours');
  await t.page.locator('.viewer-actions .primary').click();
  await t.until(t.hash, (hash) => hash !== first && !hash.includes('view='), 'the new search');
  await t.settled();
  await t.page.goBack();
  await t.page.goBack();
  await t.until(t.hash, (hash) => hash === first, 'the search before');
  await t.settled();
  await t.page.goBack();
  await t.page.locator('.search-page:not(.asking)').waitFor();
  await t.page.goForward();
  await t.settled();
  assert.equal(t.hash(), first);
});

test('the crop: drawn, pulled, moved by keys, chosen; results follow', BOTH, async (t) => {
  await t.open();
  await t.drop('main', await t.file(5));
  await t.settled();
  const whole = await t.ids();
  const stage = await t.page.locator('.crop-stage').boundingBox();
  if (t.tier === 'mock') await t.set({});
  await t.page.mouse.move(stage.x + stage.width * 0.15, stage.y + stage.height * 0.2);
  await t.page.mouse.down();
  for (let i = 1; i <= 12; i += 1) await t.page.mouse.move(stage.x + stage.width * (0.15 + 0.035 * i), stage.y + stage.height * (0.2 + 0.04 * i));
  await t.until(t.hash, (hash) => /crop=/.test(hash), 'the crop in the address while dragging');
  await t.page.mouse.up();
  await t.settled();
  const crop = new URLSearchParams(t.hash().split('?')[1]).get('crop').split(',').map(Number);
  assert.ok(Math.abs(crop[0] - 0.15) < 0.03 && Math.abs(crop[2] - 0.42) < 0.04, `crop ${crop}`);
  if (t.tier === 'mock') {
    await t.until(t.ids, (ids) => ids[0] !== whole[0], 'other results');
    const searches = (await t.set({})).filter((each) => each.what === 'search').length;
    assert.ok(searches >= 1 && searches < 14, `${searches} searches for one drag`);
  }
  await t.shot('crop');
  await t.axe('crop');
  // The corner, and the keyboard.
  const corner = await t.page.locator('.handle.se').boundingBox();
  await t.page.mouse.move(corner.x + 20, corner.y + 20);
  await t.page.mouse.down();
  await t.page.mouse.move(corner.x + 60, corner.y + 40, { steps: 4 });
  await t.page.mouse.up();
  const pulled = await t.until(async () => new URLSearchParams(t.hash().split('?')[1]).get('crop').split(',').map(Number), (c) => c[2] > crop[2] + 0.05, 'a wider frame');
  await t.page.locator('.crop-frame').focus();
  await t.page.keyboard.press('ArrowRight');
  await t.until(async () => new URLSearchParams(t.hash().split('?')[1]).get('crop').split(',').map(Number), (c) => Math.abs(c[0] - pulled[0] - 0.05) < 0.002, 'the frame moved by a key');
  await t.page.keyboard.press('Escape');
  await t.until(t.hash, (hash) => !hash.includes('crop'), 'the whole picture');
  await t.page.locator('.crop-tools select').selectOption('middle');
  await t.until(t.hash, (hash) => /crop=0\.25%2C0\.25%2C0\.5%2C0\.5/.test(hash), 'the middle');
  await t.page.goBack();
  await t.until(t.hash, (hash) => !/crop=0\.25/.test(hash), 'the crop before');
});

test('an older answer never replaces a newer one', ['mock'], async (t) => {
  await t.open('#/search?c=photos&like=id%3A4', '.search-page.asking .tile');
  const first = await t.ids();
  await t.set({ delays: { search: 1200 } });
  await t.page.locator('.crop-tools select').selectOption('left');
  await t.page.waitForTimeout(300);
  await t.set({ delays: {} });
  await t.page.locator('.crop-tools select').selectOption('whole');
  await t.page.waitForTimeout(1600);
  await t.settled();
  assert.deepEqual((await t.ids()).slice(0, 6), first.slice(0, 6));
});

test('wanted and unwanted examples ask again at once', BOTH, async (t) => {
  await t.open();
  await t.page.locator('.tile .mark.similar').nth(0).click();
  await t.settled();
  await t.page.locator('.tile .mark.like').nth(3).click();
  await t.until(t.hash, (hash) => (hash.match(/[?&]like=/g) ?? []).length === 2, 'a second example');
  await t.settled();
  await t.page.locator('.tile .mark.unlike').nth(2).click();
  await t.until(t.hash, (hash) => /unlike=id/.test(hash), 'an unwanted one');
  await t.settled();
  assert.equal(await t.page.locator('.example-row .example-small').count(), 2);
  await t.shot('positive-negative');
  await t.axe('examples');
  await t.page.locator('[data-drop=unlike] .take-out').click();
  await t.until(t.hash, (hash) => !/unlike/.test(hash), 'taken out');
});

test('addresses of private networks are refused, typed and pasted', ['real'], async (t) => {
  await t.open();
  for (const [how, address] of [['type', 'http://169.254.169.254/latest/meta-data/'], ['type', 'http://[::1]:7878/a.png'], ['paste', 'http://10.1.2.3/cat.jpg'], ['paste', 'http://2130706433/cat.jpg'], ['type', 'http://localhost/cat.jpg']]) {
    await t.open('', '.tile');
    if (how === 'paste') await t.paste({ text: address });
    else {
      await t.page.locator('#query').fill(address);
      await t.page.keyboard.press('Enter');
    }
    await t.page.locator('.state.error').waitFor();
    const words = await t.page.locator('.state.error').innerText();
    assert.match(words, /not allowed/i, address);
    assert.match(words, /private|own network|this machine|network/i, `${address}: ${words}`);
    assert.equal(await t.page.locator('.tile').count(), 0, 'no results that are not the question’s');
    assert.deepEqual(await t.page.locator('.state-actions button').allInnerTexts(), ['Choose a picture'], 'asking again would change nothing');
  }
  await t.shot('private-address');
  await t.axe('private address');
});

test('filters as chips, the slider with a count, folding', BOTH, async (t) => {
  await t.open(`#/search?c=${t.names.collection}&like=id%3A4`, '.search-page.asking .tile');
  await t.settled();
  await t.page.locator('.chip', { hasText: 'label' }).click();
  await t.page.locator('.pop label', { hasText: 'beach' }).click();
  await t.shot('filter-open');
  await t.axe('filter');
  await t.page.locator('.pop button[type=submit]').click();
  await t.page.locator('.chip.on').waitFor();
  await t.settled();
  const shown = await t.ids();
  assert.ok(shown.length > 0);
  for (const id of shown) {
    const image = await (await fetch(new URL(`api/v1/collections/${t.names.collection}/images/${id}`, t.target.url))).json();
    assert.equal(image.payload.label, 'beach', `picture ${id}`);
  }
  await t.page.locator('.chip', { hasText: 'rating' }).click();
  await t.page.locator('.pop input').first().fill('3');
  await t.page.keyboard.press('Enter');
  await t.until(() => t.page.locator('.chip.on').count(), (n) => n === 2, 'two chips');
  await t.page.locator('.chip.on').first().click();
  await t.page.locator('.chip.on').first().click();
  await t.until(t.hash, (hash) => !/[?&]f=/.test(hash), 'no filters');
  await t.settled();
  const all = Number((await t.until(() => t.page.locator('.cut-count').innerText(), (text) => /^\d/.test(text), 'a count')).match(/\d+/)[0]);
  await t.page.locator('#cut').focus();
  for (let i = 0; i < 60; i += 1) await t.page.keyboard.press('ArrowRight');
  const fewer = await t.until(() => t.page.locator('.cut-count').innerText(), (text) => Number(text.match(/\d+/)?.[0]) < all, 'a smaller count');
  await t.until(t.hash, (hash) => /min=0\./.test(hash), 'the cut in the address');
  assert.ok(Number(fewer.match(/\d+/)[0]) > 0);
  await t.page.locator('.fold input').click();
  await t.until(t.hash, (hash) => /fold=0/.test(hash), 'unfolded');
  await t.page.locator('button', { hasText: 'Numbers' }).click();
  assert.match(await t.page.locator('.tile .sub').first().innerText(), /similarity 0\.\d{4}|similarity 1/);
});

test('a filter in the filter language, and a wrong one', BOTH, async (t) => {
  await t.open();
  const write = async (text) => {
    await t.page.locator('.chip', { has: t.page.locator('span', { hasText: /More filters|Size and more/ }) }).click();
    await t.page.locator('.own-filter textarea').fill(text);
    await t.page.locator('.own-filter button').click();
  };
  await write('width >= 1');
  await t.page.locator('.chip.on').waitFor();
  await t.page.locator('.tile').first().waitFor();
  await write('width >=');
  await t.page.locator('.state.error').waitFor();
  await t.shot('filter-wrong');
  await t.page.locator('.state-actions button', { hasText: 'Remove filters' }).click();
  await t.page.locator('.tile').first().waitFor();
});

test('an expired upload says so, and goes on where the tab still has the picture', ['mock'], async (t) => {
  await t.open();
  await t.drop('main', await t.file(5));
  await t.settled();
  const link = t.page.url();
  await t.set({ forget: true });
  await t.page.locator('.crop-tools select').selectOption('middle');
  await t.until(t.hash, (hash) => /crop=0\.25/.test(hash), 'the crop');
  await t.settled();
  assert.equal(await t.page.locator('.state.error').count(), 0);
  const other = await t.context.browser().newContext();
  const stranger = await other.newPage();
  await t.set({ forget: true });
  await stranger.goto(link);
  await stranger.locator('.state.error').waitFor();
  assert.match(await stranger.locator('.state.error').innerText(), /ten minutes/);
  await other.close();
});
