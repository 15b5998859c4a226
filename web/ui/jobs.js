/** Long work on the server: which there is, and how far it is. */
import { Problem, ended, follow, get, remove } from './api.js';
import { toast } from './dom.js';
import { count, duration, jobKind, some, wordsOf } from './words.js';

/**
 * @param {any} app
 * @param {{onchange: () => void, onend: (job: import('./api.js').Job) => void}} options
 */
export function createJobs(app, { onchange, onend }) {
  /** @type {Map<string, import('./api.js').Job>} newest last */
  const all = new Map();
  const followed = new Map();
  const watchers = new Set();
  const tell = (job) => { for (const watch of watchers) watch(job); onchange(); };

  /** Follows a job to its end. */
  async function start(job) {
    all.set(job.id, job);
    tell(job);
    if (ended(job)) return job;
    if (followed.has(job.id)) return followed.get(job.id);
    const stop = new AbortController();
    const end = follow(job.id, (state) => { all.set(state.id, state); tell(state); }, stop.signal)
      .then((last) => { if (last) onend(last); return last; })
      .catch((problem) => {
        // A job the server no longer knows is over for us.
        all.delete(job.id);
        tell(job);
        if (problem.status !== 404) throw problem;
        return null;
      })
      .finally(() => followed.delete(job.id));
    followed.set(job.id, end);
    end.catch(() => {});
    return end;
  }

  return {
    /** All jobs, the newest first. */
    list: () => [...all.values()].reverse(),
    get: (id) => all.get(id),
    running: (kind) => [...all.values()].filter((job) => !ended(job) && (!kind || job.kind === kind)),
    start,
    /** Asks for the list when the status names work that is not known. */
    async check(status, always = false) {
      if (!always && !(status?.indexing ?? []).some((id) => !all.has(String(id)) && !all.has(id))) return;
      try {
        const answer = await get('/jobs');
        const jobs = [...(answer?.jobs ?? answer ?? [])].sort((a, b) => String(a.created ?? '').localeCompare(String(b.created ?? '')));
        for (const job of jobs) {
          if (ended(job)) all.set(job.id, job);
          else start(job);
        }
        onchange();
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
      }
    },
    async cancel(job) {
      try {
        await remove(`/jobs/${encodeURIComponent(job.id)}`);
        toast(`Stopped: ${jobKind(job.kind).toLowerCase()}. What was done stays.`);
      } catch (problem) {
        toast(wordsOf(problem), { kind: 'error' });
      }
    },
    watch(watch) { watchers.add(watch); return () => watchers.delete(watch); },
    /** Shows a list's entry that is not the server's: uploads of this page. */
    put(job) { all.set(job.id, job); tell(job); },
  };
}

/** "Reading pictures: 120 of 300 (40 a second, about 5 s left)" */
export function progressWords(job) {
  const { done = 0, total = null, rate = null, eta_s: eta = null } = job.progress ?? {};
  const amount = total !== null ? `${count(done)} of ${count(total)}` : done ? some(done, 'done', 'done') : 'starting';
  // The first few say little about the rest.
  const known = done >= 20;
  const more = [rate && known ? `${rate >= 10 ? Math.round(rate) : rate.toFixed(1)} a second` : '', known && eta !== null && eta !== undefined ? `about ${duration(eta)} left` : ''].filter(Boolean).join(', ');
  return `${jobKind(job.kind)}: ${amount}${more ? ` (${more})` : ''}`;
}
