// The map beside the faults: what they do to replicas and edges. It has no figures.

import { element, replace } from './dom.js';
import { watchMap } from './live.js';
import { draw } from './map-draw.js';
import { layout } from './map-layout.js';
import { text } from './texts.js';

const SMALL = { hasLabels: false };

export function showSmallMap(place, signal) {
  const picture = element('div', {}, element('p', { class: 'quiet' }, text('loading')));
  place.append(element('h2', {}, text('page.map')), picture);
  watchMap((map) => replace(picture, map.nodes.length ? draw(map, layout(map.nodes, map.edges, SMALL), {}, SMALL) : element('p', { class: 'quiet' }, text('map.empty'))), signal);
}
