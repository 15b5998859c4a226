/** One group of duplicates: the reference first, the others with what differs. */
import { button, fill, h, icon } from './dom.js';
import { showThumbnail } from './images.js';
import { bytes, count, day, duplicateKind, fileName, folder } from './words.js';

/**
 * @param {{collection: () => string, canWrite: () => boolean, onchange: () => void, ondecide: (action: string) => void,
 *   onmove: (by: number) => void, oncompare: (group: any) => void}} options
 */
export function createGroupView(options) {
  let group = null;
  const title = h('h2', { tabIndex: -1 });
  const place = h('span', { class: 'muted' });
  const cards = h('div', { class: 'members' });
  const actions = h('div', { class: 'group-actions' });
  const element = h('section', { class: 'group', 'aria-label': 'The group' },
    h('div', { class: 'group-head' }, title, place, h('div', { class: 'group-turn' },
      button({ icon: 'left', label: 'Previous group', iconOnly: true, onclick: () => options.onmove(-1) }),
      button({ icon: 'right', label: 'Next group', iconOnly: true, onclick: () => options.onmove(1) }))), actions, cards);

  /** What differs from the reference, in words. */
  function differences(member, reference) {
    if (member === reference) return '';
    const parts = [];
    const [a, b] = [member.width * member.height, reference.width * reference.height];
    if (a && b && Math.abs(a / b - 1) > 0.01) parts.push(a > b ? `${(a / b).toFixed(1)} times the pixels` : `${Math.round((100 * a) / b)} % of the pixels`);
    if (member.bytes && reference.bytes && Math.abs(member.bytes / reference.bytes - 1) > 0.02) parts.push(member.bytes > reference.bytes ? `${bytes(member.bytes - reference.bytes)} larger` : `${bytes(reference.bytes - member.bytes)} smaller`);
    return parts.join(', ');
  }

  function card(member, i) {
    const reference = group.members[0];
    const img = h('img', { alt: fileName(member.path) });
    showThumbnail(img, options.collection(), member.id, 320);
    const goes = group.going.has(member.id);
    const locked = group.decided !== 'pending' || !options.canWrite();
    const choice = h('button', {
      type: 'button', class: 'fate', 'aria-pressed': String(!goes), disabled: locked,
      'aria-label': `${fileName(member.path)}: ${goes ? 'goes; press to keep' : 'stays; press to let it go'}`,
      onclick: () => {
        if (goes) group.going.delete(member.id); else group.going.add(member.id);
        draw();
        cards.children[i]?.querySelector('.fate')?.focus();
        options.onchange();
      },
    }, icon(goes ? 'trash' : 'check'), h('span', null, goes ? 'Goes' : 'Stays'));
    const diff = differences(member, reference);
    const same = member.similarity !== undefined && i > 0 ? `${duplicateKind(member.kind ?? group.kind)}, similarity ${Number(member.similarity).toFixed(3)}` : '';
    return h('article', { class: `member ${goes ? 'goes' : 'stays'}` },
      h('div', { class: 'member-picture' }, img, h('span', { class: 'member-number', 'aria-hidden': 'true' }, String(i + 1)), i === 0 && h('span', { class: 'badge reference' }, 'Reference')),
      h('div', { class: 'member-facts' }, h('strong', { title: member.path }, fileName(member.path)),
        h('span', { class: 'muted clip', title: folder(member.path) }, folder(member.path)),
        h('span', null, [member.width ? `${member.width} × ${member.height}` : '', bytes(member.bytes)].filter(Boolean).join(' · ')), h('span', null, day(member.modified)),
        same && h('span', null, same), diff && h('span', { class: 'diff' }, diff), member.gone && h('span', { class: 'muted' }, 'No longer in the collection')),
      choice);
  }

  function draw() {
    const n = group.going.size;
    const stay = group.members.length - n;
    title.textContent = duplicateKind(group.kind);
    cards.classList.toggle('few', group.members.length < 3);
    fill(cards, group.members.map(card));
    const words = { kept: `Decided: ${stay} ${stay === 1 ? 'stays' : 'stay'}, ${n} ${n === 1 ? 'goes' : 'go'}.`, not_duplicate: 'Noted as not duplicates; they are not brought up again.', removed: 'Taken out of the collection.' }[group.decided];
    fill(actions, words ? [h('p', { class: 'decided-words' }, icon('check'), words), group.decided !== 'removed' && button({ icon: 'undo', label: 'Undo', onclick: () => options.ondecide('undo') })] : [
      button({ icon: 'check', label: n ? `Keep ${stay}, let ${n} go` : 'Keep all', class: 'primary decide', disabled: !options.canWrite() || stay === 0, onclick: () => options.ondecide('keep') }),
      group.kind !== 'same_file' && button({ label: 'Not duplicates', class: 'not-duplicates', disabled: !options.canWrite(), onclick: () => options.ondecide('not_duplicate') }),
    ], button({ icon: 'compare', label: 'Compare', class: 'compare-button', onclick: () => options.oncompare(group) }));
  }

  return {
    element,
    show(next, at, total) {
      group = next;
      place.textContent = `Group ${count(at + 1)} of ${count(total)}`;
      draw();
    },
    /** Keeps one picture, lets the others go. */
    keepOnly(id) {
      if (group.decided !== 'pending') return;
      group.going = new Set(group.members.filter((m) => m.id !== id).map((m) => m.id));
      draw();
      options.onchange();
    },
  };
}
