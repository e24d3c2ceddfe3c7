// The same as the picture, as tables: for narrow windows, for readers of the screen, and for j and k.

import { element, table } from './dom.js';
import { rateOf } from './map-rates.js';
import { canaryWords } from './map-canary.js';
import { ago, stateOf } from './pieces.js';
import { replicaAddress } from './summary.js';
import { count, duration, percent, rate, text, word } from './texts.js';

export function replicaTable({ nodes }, selected) {
  const heads = ['service', 'replica', 'state', 'in_flight', 'rate', 'latency', 'version', 'since'];
  const rows = nodes.flatMap((node) => node.replicas.map((replica) => element('tr', { class: selected.replica === replica.id ? 'chosen' : '' },
    element('td', {}, node.name),
    element('td', { class: 'steady' }, element('a', { href: replicaAddress(node, replica), 'data-row': true, id: `row-${replica.id}` }, replica.id)),
    element('td', {}, stateOf(replica.state), replica.reason && [' ', element('span', { class: 'quiet' }, word('reason', replica.reason))]),
    element('td', { class: 'much' }, count(replica.in_flight)),
    element('td', { class: 'much' }, rateOf(node, replica) === null ? '–' : rate(rateOf(node, replica))),
    element('td', { class: 'much' }, duration(replica.latency_ms)),
    element('td', {}, versionOf(replica)),
    element('td', {}, ago(replica.started_at)))));
  if (!rows.length) return element('p', { class: 'quiet' }, text('map.no_replicas'));
  return table(text('map.replicas'), heads.map((name) => [text(`map.${name}`), ['in_flight', 'rate', 'latency'].includes(name) ? 'much' : '']), element('tbody', {}, rows), { id: 'replicas' });
}

export function routeTable({ routes }, selected) {
  const rows = routes.map((route) => element('tr', { class: selected.route === route.id ? 'chosen' : '' },
    element('td', {}, element('a', { href: `/?route=${encodeURIComponent(route.id)}`, 'data-row': true, id: `route-${route.id}` }, route.id)),
    element('td', {}, element('code', {}, route.prefix)),
    element('td', {}, route.service),
    element('td', {}, word('strategy', route.strategy)),
    element('td', {}, versionsOf(route))));
  return table(text('map.routes'), ['route', 'prefix', 'service', 'strategy', 'versions'].map((name) => [text(`map.${name}`)]), element('tbody', {}, rows), { id: 'routes' });
}

// With its weight, if that is not the usual one.
export const versionOf = ({ version, weight }) => [version ?? '–', weight !== 1 && text('panel.weight', { weight: count(weight, 1) })].filter(Boolean).join(' · ');

// The canary by its name, and what became of it.
function versionsOf({ versions }) {
  if (!versions) return text('map.all_versions');
  const { shares, canary } = versions;
  const others = Object.entries(shares).filter(([version]) => version !== canary?.version);
  return [...others.map(([version, share]) => `${version} ${percent(share)}`), canary && canaryWords(versions)].filter(Boolean).join(' · ');
}
