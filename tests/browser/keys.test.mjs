/** A server with keys: who gives none, a wrong one, one that only reads, one that may write. */
import assert from 'node:assert/strict';
import { bench, test } from './lib.mjs';

test('a server with keys: asked for, refused, given; who reads cannot change anything', ['real'], async (t) => {
  const akin = await t.target.another({ count: 12, roles: ['write', 'read'] });
  const give = async (page, key) => {
    await page.locator('dialog[open] #key').fill(key);
    await page.keyboard.press('Enter');
  };
  try {
    await t.page.goto(akin.url);
    await t.page.locator('dialog[open] #key').waitFor();
    assert.match(await t.page.locator('dialog[open]').innerText(), /wants a key/);
    await t.shot('key-real');
    await t.axe('key, real server');
    await give(t.page, `akin_${'0'.repeat(12)}_${'A'.repeat(43)}`);
    await t.until(() => t.page.locator('dialog[open]').innerText(), (text) => /was refused/.test(text), 'the refusal');
    await t.shot('key-refused');
    await t.axe('key refused');
    await give(t.page, akin.keys.read);
    await t.page.locator('.tile img:not(.loading)').first().waitFor();
    await t.page.locator('.tile .mark.similar').first().click();
    await t.settled();
    assert.ok((await t.ids()).length > 3);
    // Nothing that writes is offered, and asking all the same is refused.
    await t.page.locator('.tile .picture').first().click();
    await t.page.locator('.viewer[open]').waitFor();
    assert.equal(await t.page.locator('.viewer .take-away').count(), 0);
    await t.page.keyboard.press('Escape');
    await t.page.locator('.nav a', { hasText: 'Activity' }).click();
    await t.page.locator('h1', { hasText: 'Activity' }).waitFor();
    assert.equal(await t.page.locator('.add-pictures').isHidden(), true);
    const asked = (key, method, path) => fetch(new URL(`api/v1/${path}`, akin.url), { method, headers: { authorization: `Bearer ${key}` } });
    const refused = await asked(akin.keys.read, 'DELETE', 'collections/default/images/3');
    assert.equal(refused.status, 403);
    assert.equal((await refused.json()).code, 'forbidden');
    assert.equal((await asked(akin.keys.read, 'GET', 'collections/default/images/3')).status, 200);
    // Who may write can, from the page.
    const other = await bench(t.context.browser(), { ...t.target, ...akin });
    await other.page.goto(akin.url);
    await give(other.page, akin.keys.write);
    await other.page.locator('.tile img:not(.loading)').first().waitFor();
    const before = await other.page.locator('.tile').count();
    await other.page.locator('.tile .picture').first().click();
    await other.page.locator('.viewer[open] .take-away').click();
    await other.page.locator('dialog[open] .danger').click();
    await other.until(() => other.page.locator('.tile').count(), (n) => n === before - 1, 'one picture less');
    await other.close();
  } finally {
    await akin.close();
  }
});
