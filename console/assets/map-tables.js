// The same as the picture, as tables: for narrow windows, for readers of the screen, and for j and k.

import { element, table } from './dom.js';
import { rateOf } from './map-rates.js';
import { ago, stateOf } from './pieces.js';
import { replicaAddress } from './summary.js';
import { count, duration, rate, text, word } from './texts.js';

export function replicaTable({ nodes }, selected) {
  const heads = ['service', 'replica', 'state', 'in_flight', 'rate', 'latency', 'version', 'since'];
  const rows = nodes.flatMap((node) => node.replicas.map((replica) => element('tr', { class: selected.replica === replica.id ? 'chosen' : '' },
    element('td', {}, node.name),
    element('td', { class: 'steady' }, element('a', { href: replicaAddress(node, replica), 'data-row': true, id: `row-${replica.id}` }, replica.id)),
    element('td', { class: 'steady' }, stateOf(replica.state), replica.reason && [' ', element('span', { class: 'quiet' }, word('reason', replica.reason))]),
    element('td', { class: 'much' }, count(replica.in_flight)),
    element('td', { class: 'much' }, rateOf(node, replica) === null ? '–' : rate(rateOf(node, replica))),
    element('td', { class: 'much' }, duration(replica.latency_ms)),
    element('td', {}, replica.version ?? '–'),
    element('td', {}, ago(replica.started_at)))));
  if (!rows.length) return element('p', { class: 'quiet' }, text('map.no_replicas'));
  return table(text('map.replicas'), heads.map((name) => [text(`map.${name}`), ['in_flight', 'rate', 'latency'].includes(name) ? 'much' : '']), element('tbody', {}, rows), { id: 'replicas' });
}

export function routeTable({ routes }, selected) {
  const rows = routes.map((route) => element('tr', { class: selected.route === route.id ? 'chosen' : '' },
    element('td', {}, element('a', { href: `/?route=${encodeURIComponent(route.id)}`, 'data-row': true, id: `route-${route.id}` }, route.id)),
    element('td', {}, element('code', {}, route.prefix)),
    element('td', {}, route.service),
    element('td', {}, word('strategy', route.strategy))));
  return table(text('map.routes'), ['route', 'prefix', 'service', 'strategy'].map((name) => [text(`map.${name}`)]), element('tbody', {}, rows), { id: 'routes' });
}
