// What is known about one node, replica or route, and what can be done with it.

import { ask } from './ask.js';
import { element, replace } from './dom.js';
import { rateOf } from './map-rates.js';
import { routePanel } from './map-route.js';
import { ago, facts, stateOf } from './pieces.js';
import { sparkline } from './spark.js';
import { nodeAddress, replicaAddress } from './summary.js';
import { count, duration, percent, rate, text, word } from './texts.js';

// Fills `place` for what is selected. Returns the function that shows a newer map there.
export function openPanel(place, selected) {
  const title = element('h2', { id: 'panel-title', tabindex: -1 });
  const body = element('div', { id: 'panel-body' });
  const actions = element('div', { class: 'row', id: 'panel-actions' });
  const close = element('a', { href: '/', class: 'close', 'data-close': true, 'aria-label': text('panel.close') }, '×');
  place.replaceChildren(close, title, body, actions);
  if (selected.route) return routePanel(title, body, selected.route);
  return (map) => {
    const node = map.nodes.find((one) => one.id === selected.node);
    const replica = node?.replicas.find((one) => one.id === selected.replica);
    title.textContent = selected.replica ?? node?.name ?? selected.node;
    if (!node || (selected.replica && !replica)) return replace(body, element('p', { class: 'quiet' }, text('panel.gone'))), actions.replaceChildren();
    if (replica) showReplica(body, actions, node, replica);
    else showNode(body, actions, map, node);
  };
}

function showReplica(body, actions, node, replica) {
  const reason = replica.reason && word('reason', replica.reason);
  replace(body,
    element('p', { id: 'panel-state' }, stateOf(replica.state), reason && `: ${reason}`, Date.parse(replica.until) > Date.now() && [', ', text('panel.back'), ' ', ago(replica.until)]),
    facts([
      [text('map.service'), element('a', { href: nodeAddress(node) }, node.name)],
      [text('map.in_flight'), count(replica.in_flight)],
      [text('map.rate'), rateOf(node, replica) === null ? '–' : rate(rateOf(node, replica))],
      [text('map.latency'), duration(replica.latency_ms)],
      [text('map.version'), replica.version ?? text('map.unknown')],
      [text('map.weight'), count(replica.weight, 1)],
      [text('map.slow_start'), replica.slow_start < 1 ? percent(replica.slow_start) : null],
      [text('map.since'), replica.started_at && ago(replica.started_at)],
      [text('map.address'), element('code', {}, replica.url)],
    ]));
  const path = `/api/services/${encodeURIComponent(node.name)}/replicas/${encodeURIComponent(replica.id)}`;
  const values = { id: replica.id, service: node.name };
  const button = (name, body) => element('button', { type: 'button', class: 'second', id: `do-${name}`, click: () => ask({ title: text(`replica.${name}`), words: text(`replica.${name}.ask`, values), yes: text(`replica.${name}`), path: `${path}/${name}`, body }) }, text(`replica.${name}`));
  const isOut = ['drained_by_admin', 'ejected_by_admin'].includes(replica.reason);
  replace(actions, isOut ? button('restore') : [button('drain'), button('eject', { seconds: 60 })], ...links(node.name, replica.id));
}

function links(service, instance) {
  const named = instance ? `service:${service} instance:${instance}` : `service:${service}`;
  return [
    element('a', { class: 'button', id: 'to-logs', href: `/logs?q=${encodeURIComponent(named)}` }, text('panel.logs')),
    element('a', { class: 'button', id: 'to-traces', href: `/traces?q=${encodeURIComponent(`service:${service} status:error`)}` }, text('panel.traces')),
  ];
}

function showNode(body, actions, map, node) {
  const coming = map.edges.filter((edge) => edge.to === node.id);
  const going = map.edges.filter((edge) => edge.from === node.id);
  const routes = map.routes.filter((route) => route.service === node.name);
  replace(body,
    element('p', { id: 'panel-state' }, stateOf(node.state), node.why && `: ${node.why}`),
    node.replicas.length > 0 && element('ul', { class: 'plain' }, node.replicas.map((replica) => element('li', {}, stateOf(replica.state, '', true), element('a', { href: replicaAddress(node, replica), id: `panel-${replica.id}` }, replica.id)))),
    coming.length > 0 && [element('h3', {}, text('panel.coming')), coming.map((edge) => edgeLine(map, edge, edge.from))],
    going.length > 0 && [element('h3', {}, text('panel.going')), going.map((edge) => edgeLine(map, edge, edge.to))],
    routes.length > 0 && [element('h3', {}, text('map.routes')), element('ul', { class: 'plain' }, routes.map((route) => element('li', {}, element('a', { href: `/?route=${encodeURIComponent(route.id)}` }, route.prefix), ' ', element('span', { class: 'quiet' }, word('strategy', route.strategy)))))]);
  replace(actions, node.kind === 'service' || node.kind === 'gateway' ? links(node.name, '') : []);
}

// Figures of the last minute, and the last 15 minutes as a line.
function edgeLine(map, edge, other) {
  const name = map.nodes.find((node) => node.id === other)?.name ?? other;
  return element('div', { class: 'edge-line' },
    element('p', {}, edge.kind === 'message' && '✉ ', name, ' ', element('span', { class: 'quiet' }, `${rate(edge.rate)} · ${duration(edge.p50_ms)} / ${duration(edge.p99_ms)}`),
      edge.errors > 0 && element('span', { class: 'state failing' }, ` ▲ ${rate(edge.errors)}`)),
    sparkline(edge.rates, edge.error_rates, text('panel.spark', { name })));
}
