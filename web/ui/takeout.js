/** A picture that is to leave the collection. */
import { remove, within } from './api.js';
import { button, dialog, h, toast } from './dom.js';
import { fileName, wordsOf } from './words.js';

/**
 * Asks whether it is meant, and takes the picture out.
 * @param {any} app
 * @param {{id: number, path: string}} item
 * @param {() => void} done called when it is out
 */
export function askToTakeOut(app, item, done) {
  const go = button({
    label: 'Take it out', class: 'danger',
    onclick: async () => {
      go.disabled = true;
      try {
        await remove(within(app.collection(), `/images/${item.id}`));
      } catch (problem) {
        go.disabled = false;
        toast(wordsOf(problem), { kind: 'error' });
        return;
      }
      box.finish();
      toast(`${fileName(item.path) || 'The picture'} is out of the collection.`);
      await app.refresh().catch(() => {});
      done();
    },
  });
  const box = dialog({
    title: 'Take this picture out?', class: 'small',
    body: h('p', null, 'Akin forgets it. A file in a folder of yours stays where it is, and comes back when that folder is read again; one that was added through this page is deleted.'),
    foot: [button({ label: 'Keep it', onclick: () => box.finish() }), go],
  });
}
