/**
 * The browser tests.
 *
 *     node run.mjs [--mock]                  against a stand-in for the server (fast; every state)
 *     node run.mjs --server URL              against a server that runs
 *     node run.mjs --akin target/debug/akin  starts it on pictures drawn for the purpose
 *     [--page ../../web/ui]                  with --akin, a debug build: the page of this checkout
 *     [--shots FOLDER] [--only PART OF A NAME]
 *
 * Needs `npm ci` here and Debian's `chromium` (or CHROMIUM=PATH).
 */
import { startAkin } from './akin.mjs';
import { bench, launch, tests } from './lib.mjs';
import { startMock } from './mock/server.mjs';
import './unit.test.mjs';
import './search.test.mjs';
import './states.test.mjs';
import './reach.test.mjs';
import './work.test.mjs';
import './keys.test.mjs';

const flag = (name) => { const at = process.argv.indexOf(`--${name}`); return at > 0 ? process.argv[at + 1] : undefined; };
const only = flag('only');
const shots = flag('shots');

/** What to test against. */
async function target() {
  if (flag('server')) {
    const url = flag('server').replace(/\/?$/, '/');
    return { url, tier: 'real', names: { collection: await firstCollection(url) }, close: () => {} };
  }
  if (flag('akin')) {
    const akin = await startAkin(flag('akin'), flag('page'));
    const another = (more) => startAkin(flag('akin'), flag('page'), more);
    return { ...akin, another, tier: 'real', names: { collection: await firstCollection(akin.url) } };
  }
  const mock = await startMock();
  return { url: mock.url, mock, tier: 'mock', names: { collection: 'photos' }, close: mock.close };
}

const firstCollection = async (url) => (await (await fetch(new URL('api/v1/status', url))).json()).collections[0]?.name;

const against = await target();
const browser = await launch();
let failed = 0;
let axe = 0;
let ran = 0;
for (const { name, tiers, run, device } of tests) {
  if (!tiers.includes(against.tier) || (only && !name.includes(only))) continue;
  const started = Date.now();
  const t = await bench(browser, against, { shots, ...device });
  try {
    await run(t);
    await t.close();
    console.log(`ok    ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}\n${String(error?.stack ?? error).split('\n').slice(0, 14).map((line) => `      ${line}`).join('\n')}`);
    if (shots) await t.page.screenshot({ path: `${shots}/failed-${name.replaceAll(/\W+/g, '-')}.png` }).catch(() => {});
    await t.context.close().catch(() => {});
    if (against.mock) await t.set({ delays: {}, faults: {}, key: '', role: 'admin', images: 240, servable: true, extra: {}, model: { name: 'akin-ti14', dim: 24 }, limits: { max_upload_bytes: 20_000_000, max_pixels: 1e8, max_k: 1000 } });
  }
  axe += t.tally.axe;
  ran += 1;
}
await browser.close();
await against.close();
console.log(`\n${ran - failed} of ${ran} passed; axe-core looked at ${axe} screens (serious and critical count).`);
process.exit(failed || !ran ? 1 : 0);
