// Traces, newest first, found by what their spans say.

import { call, query } from './api.js';
import { element } from './dom.js';
import { ago, stateOf } from './pieces.js';
import { searchList } from './search-list.js';
import { count, duration, text } from './texts.js';

const HEADS = ['trace', 'when', 'duration', 'spans', 'services'];

// The longest trace so far is a whole bar; it only grows within a search, so that bars do not jump.
let longest = { words: null, ms: 1 };

export const { show, update } = searchList({
  texts: {
    title: text('page.traces'),
    search: text('traces.search'),
    none: text('traces.none'),
    noneSuch: text('traces.none_such'),
  },
  examples: ['service:order-service status:error', 'duration:>200ms', 'route:/api/orders duration:>50ms', 'kind:consumer', 'POST'],
  heads: HEADS.map((name) => [text(`traces.${name}`), name === 'spans' ? 'much' : '']),
  row,
  items: async (words, before) => {
    const page = await call('GET', `/api/traces${query({ q: words, before, limit: 40 })}`);
    if (longest.words !== words) longest = { words, ms: 1 };
    longest.ms = Math.max(longest.ms, ...page.traces.map((trace) => trace.duration_ms));
    return { items: page.traces, next: page.next, tookMs: page.took_ms };
  },
});

function row(trace) {
  return element('tr', {},
    element('td', { class: 'what' }, element('a', { href: `/traces/${encodeURIComponent(trace.id)}`, 'data-row': true }, trace.name),
      trace.errors > 0 && [' ', stateOf('failing', text('traces.errors', { count: count(trace.errors) }))]),
    element('td', {}, ago(trace.at)),
    element('td', { class: 'wide-bar' }, element('span', { class: 'bar-cell' },
      element('span', { class: `length${trace.errors ? ' bad' : ''}`, style: { width: `${Math.max(1, (trace.duration_ms / longest.ms) * 100)}%` } })),
    element('span', { class: 'much' }, duration(trace.duration_ms))),
    element('td', { class: 'much' }, count(trace.spans)),
    element('td', { class: 'quiet' }, trace.services.join(', ')));
}
