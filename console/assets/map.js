// The map: who calls whom, and how it goes. The address says what is open at the side.

import { byId, element, firstIfNarrow, replace } from './dom.js';
import { watchMap } from './live.js';
import { layout } from './map-layout.js';
import { draw } from './map-draw.js';
import { openPanel } from './map-panel.js';
import { replicaTable, routeTable } from './map-tables.js';
import { remember } from './map-rates.js';
import { text } from './texts.js';

let last = null;
let parts = null;
let panel = null;
let chosen = new URLSearchParams();

export function show(place, { search, signal }) {
  last = null;
  panel = null;
  parts = { map: element('div', {}, element('p', { class: 'quiet' }, text('loading'))), replicas: element('div', {}), routes: element('div', {}), side: element('aside', { class: 'panel', 'aria-live': 'off' }) };
  const wide = element('div', { class: 'wide' }, parts.map, parts.replicas, parts.routes);
  place.append(element('h1', { class: 'unseen' }, text('page.map')), element('div', { class: 'with-panel' }, wide, parts.side));
  firstIfNarrow(1100, parts.side, wide, signal);
  chosen = search;
  watchMap(render, signal);
}

// Another address: another panel. The focus goes to it, and back to the row when it is closed.
export function update(search) {
  const before = chosen;
  chosen = search;
  panel = null;
  if (!last) return;
  render(last);
  const back = before.has('replica') ? `row-${before.get('replica')}` : `route-${before.get('route')}`;
  byId(search.has('node') || search.has('route') ? 'panel-title' : back)?.focus();
}

function render(map) {
  last = map;
  remember(map);
  const selected = { node: chosen.get('node'), replica: chosen.get('replica'), route: chosen.get('route') };
  replace(parts.map, map.nodes.length ? draw(map, layout(map.nodes, map.edges), selected) : element('p', { class: 'quiet' }, text('map.empty')));
  replace(parts.replicas, element('h2', {}, text('map.replicas')), replicaTable(map, selected));
  replace(parts.routes, element('h2', {}, text('map.routes')), routeTable(map, selected));
  const isOpen = Boolean(selected.node || selected.route);
  parts.side.hidden = !isOpen;
  if (!isOpen) return;
  panel ??= openPanel(parts.side, selected);
  panel(map);
}
