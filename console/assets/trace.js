// One trace as a waterfall: services in colours, attempts by number, messages and transactions marked, log lines in
// their place.

import { call } from './api.js';
import { element, withLoadingText } from './dom.js';
import { every } from './live.js';
import { ago, idOf, stateOf } from './pieces.js';
import { rows } from './trace-tree.js';
import { logRow, spanRow } from './trace-rows.js';
import { clock, count, duration, moment, text } from './texts.js';

const COLOURS = 8;
const MOST = 1500;
const TICKS = [0, 0.25, 0.5, 0.75];

export async function show(place, { params: [id], signal }) {
  const path = `/api/traces/${encodeURIComponent(id)}`;
  const trace = await withLoadingText(place, text('loading'), call('GET', path, { signal }));
  render(place, trace);
  // Spans of slow programs come later. A page that somebody reads is not built again by itself.
  const news = place.querySelector('#more-spans');
  every(4000, async () => {
    const later = await call('GET', path, { signal }).catch(() => trace);
    const more = later.spans.length + later.logs.length - trace.spans.length - trace.logs.length;
    if (more <= 0 || signal.aborted) return;
    news.hidden = false;
    news.textContent = text('trace.more', { count: more });
    news.onclick = () => show(place, { params: [id], signal });
  }, AbortSignal.any([signal, AbortSignal.timeout(30000)]));
}

// The order that a span names, in an attribute or in the path of a URL.
function orderOf({ attributes }) {
  const path = Object.values(attributes).map((value) => /\/api\/orders\/([0-9a-f-]{36})/.exec(value)?.[1]).find(Boolean);
  return attributes['order.id'] ?? attributes.order_id ?? path;
}

function render(place, trace) {
  const scale = trace.spans.reduce((most, span) => Math.max(most, span.offset_ms + span.duration_ms), Math.max(0.001, trace.duration_ms));
  const colour = (service) => `c${Math.max(0, trace.services.indexOf(service)) % COLOURS}`;
  const all = rows(trace);
  const errors = trace.spans.filter((span) => span.error).length;
  const root = trace.spans.find((span) => !span.parent_id) ?? trace.spans[0];
  const order = trace.spans.map(orderOf).find(Boolean);
  const lines = element('ol', { class: 'waterfall', 'aria-label': text('trace.waterfall') },
    all.slice(0, MOST).map((row) => (row.span ? spanRow(row, { colour, scale }) : logRow(row, { scale }))));
  const logs = element('label', {}, element('input', { type: 'checkbox', id: 'with-logs', checked: true, change: ({ target }) => lines.classList.toggle('without-logs', !target.checked) }), ' ', text('trace.with_logs', { count: count(trace.logs.length) }));
  place.replaceChildren(
    element('p', {}, element('a', { href: '/traces', 'data-close': true }, text('trace.back'))),
    element('h1', {}, root?.name ?? text('trace.title')),
    element('p', {}, text('trace.trace'), ' ', idOf(trace.id), ' · ', element('time', { datetime: trace.at, title: moment(trace.at) }, clock(trace.at)), ' (', ago(trace.at), ') · ', element('b', {}, duration(trace.duration_ms)),
      ` · ${text('trace.sizes', { spans: count(trace.spans.length), services: count(trace.services.length) })}`, ' · ',
      errors ? stateOf('failing', text('traces.errors', { count: count(errors) })) : stateOf('healthy', text('trace.no_errors'))),
    element('div', { class: 'row' }, trace.services.map((service) => element('span', { class: `service ${colour(service)}` }, service)), logs,
      order && element('a', { class: 'button', href: `/orders/${encodeURIComponent(order)}` }, text('trace.to_order')),
      element('a', { class: 'button', href: `/logs?q=${encodeURIComponent(`trace:${trace.id}`)}` }, text('trace.to_logs')),
      element('button', { type: 'button', class: 'second', id: 'more-spans', hidden: true }, text('trace.more', { count: 0 }))),
    element('div', { class: 'scrolls', tabindex: 0, role: 'region', 'aria-label': text('trace.waterfall') },
      element('div', { class: 'waterfall-frame' },
        element('div', { class: 'ticks', 'aria-hidden': 'true' }, element('span', { class: 'track' }, TICKS.map((part) => element('span', { style: { left: `${part * 100}%` } }, duration(part * scale))))),
        lines)),
    all.length > MOST && element('p', { class: 'quiet' }, text('trace.too_many', { count: count(MOST) })));
}
