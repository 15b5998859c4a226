/** Starts the real server on pictures drawn for the purpose. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { collection } from './mock/data.mjs';
import { picture } from './mock/pictures.mjs';

const free = () => new Promise((done) => { const s = createServer().listen(0, '127.0.0.1', () => { const { port } = s.address(); s.close(() => done(port)); }); });

/** Few enough that a debug build looks at all pairs in reasonable time. */
const PICTURES = 54;

/** Draws a collection's pictures into a folder. */
export function drawPictures(folder, n = PICTURES) {
  for (const item of collection('photos', n).items) {
    const at = join(folder, item.theme);
    mkdirSync(at, { recursive: true });
    writeFileSync(join(at, item.path.split('/').pop()), picture(item, item.edit ? 300 : 400));
  }
}

/** Attaches to each picture what its folder says, and a number, so that there is something to filter by. */
async function attach(images, headers) {
  const { images: all } = await (await fetch(`${images}?limit=1000`, { headers })).json();
  for (const { id, path } of all) {
    const payload = { label: basename(dirname(path)), rating: 1 + (id % 5) };
    const answer = await fetch(`${images}/${id}/payload`, { method: 'PATCH', headers: { ...headers, 'content-type': 'application/merge-patch+json' }, body: JSON.stringify(payload) });
    if (!answer.ok) throw new Error(`payload of ${id}: ${answer.status} ${await answer.text()}`);
  }
}

/**
 * Starts `akin serve` in a home of its own and waits until all pictures are read.
 * @param {string} program
 * @param {string} [page] folder with the page, instead of the one in the program (debug builds only)
 * @param {{count?: number, roles?: string[]}} [more] how many pictures; roles to make keys for, without
 *   which there are none. The first may write.
 * @returns {Promise<{url: string, keys: Record<string, string>, close: () => Promise<void>}>}
 */
export async function startAkin(program, page, { count = PICTURES, roles = [] } = {}) {
  const home = mkdtempSync(join(tmpdir(), 'akin-browser-'));
  const pictures = join(home, 'pictures');
  drawPictures(pictures, count);
  const env = { ...process.env, AKIN_HOME: join(home, 'home') };
  const keys = Object.fromEntries(roles.map((role) => [role, JSON.parse(execFileSync(resolve(program), ['key', 'create', '--role', role, '--json'], { env })).key]));
  const headers = roles.length ? { authorization: `Bearer ${keys[roles[0]]}` } : {};
  const port = await free();
  const child = spawn(resolve(program), ['serve', '--index', pictures, '--listen', `127.0.0.1:${port}`, ...(page ? ['--ui-dir', resolve(page)] : [])], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { said = (said + data).slice(-4000); });
  const url = `http://127.0.0.1:${port}/`;
  const close = () => new Promise((done) => { child.once('exit', () => { rmSync(home, { recursive: true, force: true }); done(); }); child.kill('SIGTERM'); });
  for (let i = 0; i < 600; i += 1) {
    if (child.exitCode !== null) throw new Error(`akin ended: ${said}`);
    try {
      const status = await (await fetch(`${url}api/v1/status`, { headers })).json();
      if (status.collections.some((c) => c.images >= count - 2) && !status.indexing?.length) {
        await attach(new URL(`api/v1/collections/${status.collections[0].name}/images`, url), headers);
        return { url, keys, close };
      }
    } catch { /* not up yet */ }
    await new Promise((done) => { setTimeout(done, 500); });
  }
  await close();
  throw new Error(`akin did not read its pictures: ${said}`);
}
