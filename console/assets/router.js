// Every view has an address. A link to one changes the view without loading the page again; Back works.

import { byId, element } from './dom.js';
import { markPage } from './frame.js';
import { failure } from './pieces.js';
import { text } from './texts.js';

// Each module is loaded when its view is first shown. It exports `show(place, { params, search, signal })`, which fills
// `place` and stops when `signal` aborts, and may export `update(search)` for a change of the query alone.
const VIEWS = [
  [/^\/$/, 'map', () => import('./map.js')],
  [/^\/orders$/, 'orders', () => import('./orders.js')],
  [/^\/orders\/([^/]+)$/, 'orders', () => import('./order.js')],
  [/^\/traces$/, 'traces', () => import('./traces.js')],
  [/^\/traces\/([^/]+)$/, 'traces', () => import('./trace.js')],
  [/^\/logs$/, 'logs', () => import('./logs.js')],
  [/^\/messages$/, 'messages', () => import('./messages.js')],
  [/^\/numbers$/, 'numbers', () => import('./numbers.js')],
  [/^\/lab$/, 'lab', () => import('./lab.js')],
];

let running = new AbortController();
let shown = null;

export function startRouter() {
  addEventListener('popstate', () => route(false));
  document.addEventListener('click', follow);
  return route(false);
}

// Shows another address. With `quietly`, it takes the place of the present one in the history.
export function go(address, quietly = false) {
  history[quietly ? 'replaceState' : 'pushState'](null, '', address);
  return route(true);
}

// The address of this view with other values in its query; an empty value is left out.
export function withQuery(values) {
  const search = new URLSearchParams(location.search);
  search.delete('lang');
  for (const [name, value] of Object.entries(values)) {
    if (value) search.set(name, value);
    else search.delete(name);
  }
  return location.pathname + (search.size ? `?${search}` : '');
}

function follow(event) {
  const link = event.target.closest?.('a[href]');
  if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.defaultPrevented) return;
  const address = new URL(link.href?.baseVal ?? link.href, location.href);
  if (address.origin !== location.origin || address.searchParams.has('lang') || address.hash || !viewOf(address.pathname)) return;
  event.preventDefault();
  go(address.pathname + address.search);
}

// What cannot be decoded stays as it is, and names nothing.
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

const viewOf = (path) => VIEWS.find(([pattern]) => pattern.test(path));

async function route(isMove) {
  const path = location.pathname;
  const search = new URLSearchParams(location.search);
  if (shown?.path === path && shown.update) return shown.update(search);
  running.abort();
  const mine = new AbortController();
  running = mine;
  shown = null;
  const found = viewOf(path);
  const place = element('div', { class: 'view' });
  byId('main').replaceChildren(place);
  markPage(found?.[1] ?? '');
  if (isMove) {
    byId('main').focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  if (!found) return place.replaceChildren(element('p', {}, text('error.no_page')));
  const params = found[0].exec(path).slice(1).map(decoded);
  try {
    const module = await found[2]();
    if (mine.signal.aborted) return;
    shown = { path, update: module.update };
    await module.show(place, { params, search, signal: mine.signal });
  } catch (problem) {
    if (mine.signal.aborted) return;
    shown = null;
    place.replaceChildren(failure(problem, () => route(false)));
    console.error(problem);
  }
}
