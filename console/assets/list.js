// A list that stays up to date and does not jump: known rows change in place, new ones are counted until they are let
// in, older ones come on request. Old rows stay, marked as old, when an answer is missing.

import { element, table, withLoadingText } from './dom.js';
import { every } from './live.js';
import { failure } from './pieces.js';
import { count, text } from './texts.js';

const EVERY = 4000;

// `load(cursor)` gives `{ items, next }`; `row(item)` a table row; `heads` as for `table`. Returns `reload`, to start anew.
export function listView(place, { label, heads, load, row, empty, signal }) {
  const body = element('tbody', { id: 'rows' });
  const frame = table(label, heads, body, { hidden: true });
  const [above, below] = [element('div', { class: 'above' }), element('div', {})];
  place.replaceChildren(above, frame, below);
  let shown = new Map();
  let next = null;
  let turn = 0;
  let isFirst = true;

  function add(items) {
    for (const item of items) {
      if (shown.has(item.id)) continue;
      const made = row(item);
      shown.set(item.id, { made, as: JSON.stringify(item) });
      body.append(made);
    }
    frame.hidden = shown.size === 0;
    below.replaceChildren(...(shown.size === 0 ? [element('p', { class: 'quiet', id: 'empty' }, empty())]
      : next ? [element('button', { type: 'button', class: 'second', id: 'older', click: older }, text('list.older'))] : []));
  }

  // Changes known rows in place; returns how many are new.
  function compare(items) {
    for (const item of items) {
      const known = shown.get(item.id);
      const as = JSON.stringify(item);
      if (!known || known.as === as) continue;
      const focused = known.made.contains(document.activeElement);
      const made = row(item);
      known.made.replaceWith(made);
      if (focused) made.querySelector('[data-row]')?.focus({ preventScroll: true });
      Object.assign(known, { made, as });
    }
    return items.filter((item) => !shown.has(item.id)).length;
  }

  async function refresh() {
    const mine = turn;
    try {
      const asked = load(null);
      const page = await (isFirst ? withLoadingText(above, text('loading'), asked) : asked);
      if (mine !== turn || signal.aborted) return;
      frame.classList.remove('old');
      if (isFirst || shown.size === 0) {
        isFirst = false;
        next = page.next;
        shown = new Map();
        body.replaceChildren();
        above.replaceChildren();
        return add(page.items);
      }
      const news = compare(page.items);
      const more = page.items.length === news ? '+' : '';
      above.replaceChildren(...(news ? [element('button', { type: 'button', class: 'second', id: 'news', click: reload }, text('list.new', { count: count(news) + more }))] : []));
    } catch (problem) {
      if (mine !== turn || signal.aborted) return;
      frame.classList.add('old');
      above.replaceChildren(failure(problem, reload));
    }
  }

  async function older() {
    try {
      const page = await load(next);
      next = page.next;
      const first = body.children.length;
      add(page.items);
      body.children[first]?.querySelector('[data-row]')?.focus();
    } catch (problem) {
      below.replaceChildren(failure(problem, older));
    }
  }

  function reload() {
    turn += 1;
    isFirst = true;
    return refresh();
  }

  every(EVERY, refresh, signal);
  return reload;
}
