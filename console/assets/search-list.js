// A view that searches and lists: the words are in the address, and the list follows them.

import { element, replace } from './dom.js';
import { listView } from './list.js';
import { searchForm } from './search-form.js';
import { duration, text } from './texts.js';

// `texts` are `{ title, search, none, noneSuch }`; `heads` and `row` as for `listView`. `items(words, before)` asks for
// a page of the list: `{ items, next, tookMs }`.
export function searchList({ texts, examples, heads, row, items }) {
  let place = null;
  let outer = null;
  let stop = new AbortController();

  function update(search) {
    stop.abort();
    stop = new AbortController();
    const words = search.get('q') ?? '';
    const list = element('div', {});
    const took = element('span', { class: 'quiet', id: 'took' });
    const form = searchForm({ label: texts.search, value: words, examples, extra: took });
    replace(place, element('h1', {}, texts.title), form, list);
    listView(list, {
      label: texts.title,
      heads,
      signal: AbortSignal.any([stop.signal, outer]),
      empty: () => (words ? texts.noneSuch : texts.none),
      row,
      load: async (before) => {
        const page = await items(words, before);
        took.textContent = text('search.took', { time: duration(page.tookMs) });
        return page;
      },
    });
  }

  function show(where, { search, signal }) {
    place = where;
    outer = signal;
    update(search);
  }

  return { show, update };
}
