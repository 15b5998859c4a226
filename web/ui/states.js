/** What is drawn where there are no pictures: nothing yet, nothing found, something wrong. */
import { button, h, icon } from './dom.js';
import { wordsOf } from './words.js';

/**
 * A drawn state: icon, headline, explanation, actions.
 * @param {{icon: string, title: string, text?: any, actions?: any[], kind?: string, detail?: string}} options
 */
export function state({ icon: name, title, text, actions = [], kind = '', detail }) {
  return h('section', { class: `state ${kind}`, ...(kind === 'error' ? { role: 'alert' } : {}) },
    h('div', { class: 'state-icon' }, icon(name)), h('h2', null, title), text && h('p', null, text),
    actions.length > 0 && h('div', { class: 'state-actions' }, actions),
    detail && h('p', { class: 'muted small-text mono' }, detail));
}

/**
 * A problem with its remedy; where waiting helps, it waits and tries again by itself.
 * @param {import('./api.js').Problem} problem
 * @param {{retry?: () => void, more?: any[]}} [options]
 */
export function problemState(problem, { retry, more = [] } = {}) {
  const actions = [...more];
  const again = retry && button({ icon: 'refresh', label: 'Try again', class: more.length ? '' : 'primary', onclick: () => { stop(); retry(); } });
  if (again) actions.push(again);
  const name = problem.code === 'unreachable' ? 'offline' : problem.status === 429 || problem.status === 503 ? 'clock' : 'warn';
  const text = wordsOf(problem);
  const wait = h('p', { class: 'muted', 'aria-live': 'off' });
  const element = h('div', null, state({
    icon: name, title: titleOf(problem), text, actions, kind: 'error',
    detail: problem.requestId ? `Request ${problem.requestId}` : '',
  }), wait);
  let left = waitOf(problem);
  let timer = 0;
  const stop = () => clearInterval(timer);
  if (retry && left !== null) {
    const tick = () => {
      if (!element.isConnected && left < waitOf(problem)) { stop(); return; }
      wait.textContent = left > 0 ? `Trying again in ${left} s` : 'Trying again…';
      if (left <= 0) { stop(); retry(); }
      left -= 1;
    };
    tick();
    timer = setInterval(tick, 1000);
  }
  return element;
}

/** Seconds after which trying again makes sense, or null. */
function waitOf(problem) {
  if (problem.status === 429 || problem.code === 'draining' || problem.code === 'busy') return Math.min(60, Math.max(1, Math.ceil(problem.retryAfter ?? 3)));
  return null;
}

/** Our words for what people meet often; else the server's. */
function titleOf(problem) {
  return {
    rate_limited: 'That was a lot at once', overloaded: 'Akin is busy', body_too_large: 'That picture is too large',
    image_too_large: 'That picture is too large', not_an_image: 'That is not a picture Akin can read', remote_failed: 'That address gave no picture',
    remote_too_large: 'The picture at that address is too large', address_refused: 'That address is not allowed', timeout: 'It took too long',
    invalid_filter: 'The filter is not right', missing_key: 'A key is needed', forbidden: 'Your key does not allow this',
  }[problem.code] ?? problem.title;
}

/**
 * A line above the page: something is limited, but it works.
 * @param {{name?: string, icon?: string, text: string, action?: any, kind?: string}} options `name`: what it
 *   is about, where its text changes
 */
export function notice({ name = '', icon: drawn = 'info', text, action, kind = '' }) {
  return h('div', { class: `notice ${kind}`, dataset: { name: name || text } }, icon(drawn), h('span', { class: 'grow' }, text), action);
}
