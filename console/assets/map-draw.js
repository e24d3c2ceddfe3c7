// The map as a picture. Everything in it that can be opened is a link, so the keyboard reaches it too.

import { element, svg } from './dom.js';
import { canariesOf } from './map-canary.js';
import { SHAPES } from './pieces.js';
import { nodeAddress, replicaAddress } from './summary.js';
import { duration, durations, percent, rate, text } from './texts.js';

// How far the edges within a column go out for their bend.
const BOW = 56;

// With `hasLabels`, the rate and the times of an edge are beside it; they are in its title in any case.
export function draw({ nodes, routes }, { boxes, lines, width, height }, selected, { hasLabels = true } = {}) {
  const picture = svg('svg', { viewBox: `0 0 ${width} ${height}`, class: 'map', role: 'group', 'aria-label': text('map.picture'), style: { '--least': `${Math.round(width * (hasLabels ? 0.72 : 0.5))}px`, '--most': `${Math.round(width * 1.15)}px` } },
    svg('defs', {}, ['fine', 'bad', 'idle'].map((kind) => svg('marker', { id: `tip-${kind}`, class: `tip ${kind}`, viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: 'userSpaceOnUse', orient: 'auto' }, svg('path', { d: 'M0 0 8 4 0 8z' })))),
    lines.map(drawEdge), nodes.map((node) => drawNode(boxes.get(node.id), canariesOf(node, routes), selected)), hasLabels && lines.map(drawLabel));
  return element('div', { class: 'scrolls map-frame', id: 'map-frame', tabindex: 0, role: 'region', 'aria-label': text('map.picture') }, picture);
}

// Thickness is the rate, colour the errors; messages are dashed.
function drawEdge({ edge, start, stop }) {
  const kind = kindOf(edge);
  const thick = edge.rate ? Math.min(7, 1.4 + Math.log10(1 + edge.rate) * 1.8) : 1;
  return svg('path', { class: `edge ${edge.kind} ${kind}`, d: curve(start, stop), 'stroke-width': thick.toFixed(1), 'marker-end': `url(#tip-${kind})` }, svg('title', {}, sentence(edge)));
}

const kindOf = (edge) => (edge.errors > 0 ? 'bad' : edge.rate > 0 ? 'fine' : 'idle');

function curve(start, stop) {
  const bend = start.side === stop.side ? BOW : Math.max(36, Math.abs(stop.x - start.x) / 2);
  const out = (end) => end.x + (end.side === 'right' ? bend : -bend);
  return `M${start.x} ${start.y} C${out(start)} ${start.y} ${out(stop)} ${stop.y} ${stop.x} ${stop.y}`;
}

function sentence(edge) {
  const name = (id) => id.replace(/^\w+:/, '');
  const values = { from: name(edge.from), to: name(edge.to), rate: rate(edge.rate), errors: rate(edge.errors), p50: duration(edge.p50_ms), p99: duration(edge.p99_ms) };
  return text(edge.kind === 'message' ? 'map.edge.message' : 'map.edge.call', values);
}

// Before the end of the edge, on the side from which it does not come; outside of the bow of an edge within a column.
function drawLabel({ edge, start, stop }) {
  if (!edge.rate) return null;
  const left = stop.side === 'left';
  const isBow = start.side === stop.side;
  const place = { x: stop.x + (left ? -1 : 1) * (isBow ? BOW * 0.75 + 4 : 10), 'text-anchor': left ? 'end' : 'start' };
  const [first, second] = isBow ? [4, 17] : start.y < stop.y ? [15, 28] : [-5, -20];
  const figures = edge.p50_ms === null ? rate(edge.rate) : `${rate(edge.rate)} · ${durations(edge.p50_ms, edge.p99_ms)}`;
  return svg('g', { class: 'label' },
    svg('text', { ...place, y: stop.y + first }, edge.kind === 'message' ? `✉ ${figures}` : figures),
    edge.errors > 0 && svg('text', { class: 'bad', ...place, y: stop.y + second }, `▲ ${percent(edge.errors / edge.rate)}`));
}

function drawNode({ node, x, y, w, h }, canaries, selected) {
  const isOpen = selected.node === node.id && !selected.replica;
  const mark = { database: '▤ ', broker: '✉ ', registry: '☰ ', external: '⇗ ' }[node.kind] ?? '';
  const middle = y + h / 2;
  const states = node.replicas.map((replica) => replica.state);
  const link = svg('a', { href: nodeAddress(node), id: `node-${node.id}`, class: `node ${node.kind} ${node.state}${isOpen ? ' open' : ''}`, 'aria-label': [`${node.name}: ${text(`state.${node.state}`)}`, ...canaries].join(', ') },
    svg('title', {}, [node.why ?? `${node.name}: ${text(`state.${node.state}`)}`, ...canaries].join(' · ')),
    svg('rect', { x, y, width: w, height: h, rx: 8 }),
    canaries.length > 0 && svg('text', { class: 'canary', x: x + 2, y: y + h + 15 }, canaries[0], canaries.length > 1 && ' …'),
    svg('text', { class: 'title', x: x + 12, y: middle - 6 }, mark + shown(node)),
    states.length === 0 && svg('text', { class: `state ${node.state}`, x: x + 12, y: middle + 15 }, `${SHAPES[node.state]} ${text(`state.${node.state}`)}`));
  const dots = node.replicas.map((replica, index) => drawReplica(node, replica, x + 12 + index * 20, middle + 16, selected));
  return [link, dots, states.length > 0 && svg('text', { class: 'words', x: x + 16 + Math.min(states.length, 5) * 20, y: middle + 15 }, words(states))];
}

const shown = (node) => (node.kind === 'clients' ? text('map.clients') : node.name);

// What the dots say: all healthy, or how many are not.
function words(states) {
  const worst = ['failing', 'away', 'degraded'].find((state) => states.includes(state));
  if (states.length > 5) return '';
  return worst ? `${states.filter((state) => state === worst).length} ${text(`state.${worst}`)}` : text('state.healthy');
}

function drawReplica(node, replica, x, y, selected) {
  const isOpen = selected.replica === replica.id;
  return svg('a', { href: replicaAddress(node, replica), id: `replica-${replica.id}`, class: `replica state ${replica.state}${isOpen ? ' open' : ''}`, 'aria-label': `${replica.id}: ${text(`state.${replica.state}`)}`, 'data-replica': replica.id, 'data-state': replica.state },
    svg('title', {}, `${replica.id}: ${text(`state.${replica.state}`)}`),
    svg('rect', { x: x - 3, y: y - 16, width: 20, height: 22, rx: 4 }),
    svg('text', { x: x + 7, y, 'text-anchor': 'middle' }, SHAPES[replica.state]));
}
