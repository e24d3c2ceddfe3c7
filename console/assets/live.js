// What the program tells by itself: the map, every two seconds, by server-sent events. Nothing while the tab is hidden.

import { checkSession } from './session.js';

const SLOWEST = 10000;

let source = null;
let last = null;
let silence = 0;
// While a pointer is down, nothing moves under it.
let held = false;
let waiting = null;
let connection = () => {};
const listeners = new Set();

// Calls `listener` with the map now, if it is known, and at every change until `signal` aborts.
export function watchMap(listener, signal) {
  listeners.add(listener);
  signal?.addEventListener('abort', () => listeners.delete(listener));
  if (last) listener(last);
}

// `listener` is told `open` and `lost`.
export const watchConnection = (listener) => { connection = listener; };

addEventListener('pointerdown', () => { held = true; });
['pointerup', 'pointercancel'].forEach((name) => addEventListener(name, () => setTimeout(release)));

function release() {
  held = false;
  if (waiting) tell(waiting);
}

export function startLive() {
  stopLive();
  if (!document.hidden) connect();
  document.addEventListener('visibilitychange', resume);
}

export function stopLive() {
  document.removeEventListener('visibilitychange', resume);
  close();
}

function resume() {
  if (document.hidden) close();
  else if (source === null) connect();
}

function close() {
  source?.close();
  source = null;
  clearTimeout(silence);
}

function connect() {
  source = new EventSource('/api/live');
  source.addEventListener('map', ({ data }) => {
    connection('open');
    expect();
    tell(JSON.parse(data));
  });
  source.addEventListener('session', checkSession);
  // The browser reconnects by itself, except after an answer that is an error.
  source.addEventListener('error', () => {
    connection('lost');
    if (source?.readyState !== EventSource.CLOSED) return;
    close();
    checkSession();
    silence = setTimeout(resume, SLOWEST / 2);
  });
  expect();
}

// A connection can be gone without an error.
function expect() {
  clearTimeout(silence);
  silence = setTimeout(() => {
    connection('lost');
    close();
    resume();
  }, SLOWEST);
}

function tell(map) {
  waiting = held ? map : null;
  if (held) return;
  last = map;
  listeners.forEach((listener) => listener(map));
}

// Calls `work` now and then every `milliseconds` (2,000 at least) until `signal` aborts, one call at a time; not while
// the tab is hidden.
export async function every(milliseconds, work, signal) {
  while (!signal.aborted) {
    if (!document.hidden) await work();
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(2000, milliseconds));
      signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
    });
  }
}
