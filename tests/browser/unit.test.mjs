/** Addresses, filters and words: the parts of the page that need no browser. */
import assert from 'node:assert/strict';
import { test } from './lib.mjs';
import { blank, chipWords, filterOf, format, parse } from '../../web/ui/url.js';
import { bytes, duration, percentile, ruleWords, stepWords } from '../../web/ui/words.js';

test('an address gives back the state it was made of', ['mock'], async () => {
  const state = {
    ...blank(), collection: 'holiday 2024', like: [{ kind: 'id', value: '17' }, { kind: 'url', value: 'https://a.example/x?y=1&z=ü#f' }, { kind: 'query', value: 'abc' }],
    unlike: [{ kind: 'id', value: '3' }], crop: { x: 0.1, y: 0.25, width: 0.5, height: 0.125 }, where: 'a = "b" and not (c < 3)', min: 0.42, fold: false, view: 9, tab: 'x',
    chips: [{ field: 'payload.label', op: 'in', value: ['dog', 'a "b" \\ c'] }, { field: 'width', op: 'range', value: [100, null] }],
  };
  assert.deepEqual(parse(format(state)), state);
  assert.deepEqual(parse(format({ ...blank(), page: 'sets', sub: 'my set/…' })).sub, 'my set/…');
});

test('an address that makes no sense gives a page all the same', ['mock'], async () => {
  for (const hash of ['', '#', '#/nowhere', '#/search?like=id:x&like=rubbish&crop=1,2&f={&min=NaN&view=-1', '#/search?crop=0.5,0.5,0,0', '#/%E0%A4%A', '#/search?f=["a","!","b"]']) {
    const { page, like, crop, chips, min, view } = parse(hash);
    assert.deepEqual([page, like, crop, chips, min, view], ['search', [], null, [], null, null], hash);
  }
  assert.deepEqual(parse('#/search?crop=0.9,0.9,0.9,0.9').crop.width.toFixed(4), '0.1000');
});

test('filters are written as the filter language has them', ['mock'], async () => {
  const of = (...chips) => filterOf({ ...blank(), chips });
  assert.equal(of({ field: 'payload.label', op: '=', value: 'say "hi" \\ now\n' }), 'payload.label = "say \\"hi\\" \\\\ now\\n"');
  assert.equal(of({ field: 'payload.odd name', op: '=', value: 1 }), '`payload.odd name` = 1');
  assert.equal(of({ field: 'in', op: 'exists' }), 'exists `in`');
  assert.equal(of({ field: 'width', op: 'range', value: [10, 20] }, { field: 'payload.ok', op: '=', value: true }), 'width >= 10 and width <= 20 and payload.ok = true');
  assert.equal(filterOf({ ...blank(), chips: [{ field: 'a', op: 'in', value: ['x', 2] }], where: 'b = 1 or c = 2' }), 'a in ("x", 2) and (b = 1 or c = 2)');
  assert.equal(filterOf(blank()), undefined);
  assert.equal(chipWords({ field: 'payload.rating', op: 'range', value: [3, null] }), 'rating from 3');
});

test('figures in words', ['mock'], async () => {
  assert.deepEqual([0, 999, 1500, 20_000_000, 3.2e9].map(bytes), ['0 bytes', '999 bytes', '1.5 kB', '20 MB', '3.2 GB']);
  assert.deepEqual([3, 89, 600, 7260].map(duration), ['3 s', '89 s', '10 min', '2 h 1 min']);
  assert.deepEqual([100, 99.97, 98.6, 3, null].map(percentile), ['closer than 99.9 %', 'closer than 99.9 %', 'closer than 98 %', 'closer than 3 %', '']);
  assert.equal(stepWords('03-retrieve'), 'Gathered: like the examples');
  assert.equal(ruleWords('something-new'), 'Something new');
});
