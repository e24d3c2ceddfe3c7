// Figures over time, as small charts with the same axis of time; dragging over one zooms all.

import { call, query } from './api.js';
import { chart } from './chart.js';
import { element, replace, table, withLoadingText } from './dom.js';
import { every } from './live.js';
import { failure, stateOf } from './pieces.js';
import { go, withQuery } from './router.js';
import { clock, count, duration, rate, text, word } from './texts.js';

const EVERY = 10000;
const SPANS = ['15', '60', '360', '1440'];

let parts = null;
let outer = null;
let stop = new AbortController();

export function show(place, { search, signal }) {
  outer = signal;
  parts = { bar: element('div', { class: 'search' }), above: element('div', {}), charts: element('div', { id: 'charts' }), below: element('div', { class: 'two' }) };
  place.append(element('h1', {}, text('page.numbers')), parts.bar, parts.above, parts.charts, parts.below);
  update(search);
}

export function update(search) {
  stop.abort();
  stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, outer]);
  const minutes = SPANS.includes(search.get('minutes')) ? search.get('minutes') : '60';
  const [from, to] = [search.get('from'), search.get('to')];
  const isPart = Date.parse(from) < Date.parse(to);
  const zoom = { service: search.get('service') ?? '', from: isPart ? from : null, to: isPart ? to : null };
  every(EVERY, refresh, signal);

  async function refresh() {
    try {
      const asked = call('GET', `/api/numbers${query({ minutes, service: zoom.service })}`, { signal });
      const answer = await (parts.charts.children.length ? asked : withLoadingText(parts.above, text('loading'), asked));
      parts.above.replaceChildren(...(answer.missing.length ? [stateOf('degraded', text('missing', { names: answer.missing.join(', ') }))] : []));
      // Not under a finger that drags.
      if (signal.aborted || parts.charts.querySelector('.dragging')) return;
      parts.charts.classList.remove('old');
      showBar(answer, minutes, zoom);
      replace(parts.charts, answer.series.length ? charts(answer, zoom) : element('p', { class: 'quiet', id: 'empty' }, text('numbers.none')));
      replace(parts.below, instances(answer.instances), sagas(answer.sagas));
    } catch (problem) {
      if (signal.aborted) return;
      parts.charts.classList.add('old');
      parts.above.replaceChildren(failure(problem, refresh));
    }
  }
}

let services = new Set();

function showBar({ series }, minutes, zoom) {
  services = new Set([...services, ...series.map((one) => one.service)].sort());
  if (document.activeElement?.closest('select') && parts.bar.contains(document.activeElement)) return;
  const span = element('select', { id: 'minutes', change: () => go(withQuery({ minutes: span.value, from: '', to: '' })) },
    SPANS.map((one) => element('option', { value: one, selected: one === minutes }, text(`numbers.last.${one}`))));
  const service = element('select', { id: 'service', change: () => go(withQuery({ service: service.value })) },
    element('option', { value: '' }, text('numbers.all')),
    [...services].map((one) => element('option', { value: one, selected: one === zoom.service }, one)));
  replace(parts.bar,
    element('label', { for: 'minutes' }, text('numbers.time')), span,
    element('label', { for: 'service' }, text('map.service')), service,
    zoom.from && element('a', { class: 'button', id: 'unzoom', 'data-close': true, href: withQuery({ from: '', to: '' }) }, text('numbers.unzoom', { from: clock(zoom.from).slice(0, 5), to: clock(zoom.to).slice(0, 5) })),
    element('span', { class: 'quiet' }, text('numbers.drag')));
}

// Without a service: the whole of each. With one: each of its routes.
function charts({ from, step_s: step, series }, zoom) {
  const wanted = series.filter((one) => (zoom.service ? one.service === zoom.service : one.route === ''));
  const length = Math.max(0, ...wanted.map((one) => one.rate.length));
  const times = Array.from({ length }, (_, index) => new Date(Date.parse(from) + index * step * 1000).toISOString());
  const inside = times.map((time) => (!zoom.from || time >= zoom.from) && (!zoom.to || time <= zoom.to));
  const cut = (values) => values.filter((_, index) => inside[index]);
  const shared = { times: cut(times), onZoom: (begin, end) => go(withQuery({ from: begin, to: end })) };
  return wanted.map((one) => {
    const name = one.route || one.service;
    return element('section', { class: 'multiples', 'aria-label': name, 'data-series': name },
      element('h2', {}, zoom.service ? name : element('a', { href: withQuery({ service: one.service }), 'data-row': true }, name)),
      element('div', { class: 'grid' },
        chart({ ...shared, title: text('numbers.rate'), write: rate, lines: [{ name: text('numbers.requests'), values: cut(one.rate), kind: 'p50' }] }),
        chart({ ...shared, title: text('numbers.errors'), write: rate, lines: [{ name: text('numbers.errors'), values: cut(one.errors), kind: 'bad' }] }),
        chart({ ...shared, title: text('numbers.latency'), write: duration, lines: ['p50', 'p90', 'p99'].map((kind) => ({ name: kind, values: cut(one[`${kind}_ms`]), kind })) })));
  });
}

function instances(all) {
  const heads = ['replica', 'in_flight', 'pool', 'outbox'];
  const some = (value) => (value === null ? '–' : count(value));
  return element('section', {}, element('h2', {}, text('numbers.now')),
    table(text('numbers.now'), heads.map((name) => [text(`numbers.${name}`), name === 'replica' ? '' : 'much']),
      element('tbody', {}, all.map((one) => element('tr', {},
        element('td', {}, one.instance ?? one.service),
        element('td', { class: 'much' }, some(one.in_flight)),
        element('td', { class: 'much' }, one.pool_max === null ? '–' : text('numbers.pool_of', { used: some(one.pool_used), max: some(one.pool_max) })),
        element('td', { class: 'much' }, some(one.outbox)))))));
}

function sagas(all) {
  return element('section', {}, element('h2', {}, text('numbers.sagas')),
    all.length === 0 ? element('p', { class: 'quiet' }, text('numbers.no_sagas'))
      : table(text('numbers.sagas'), [[text('numbers.outcome')], [text('numbers.count'), 'much']],
        element('tbody', {}, all.map((one) => element('tr', {}, element('td', {}, word('status', one.outcome)), element('td', { class: 'much' }, count(one.count)))))));
}
