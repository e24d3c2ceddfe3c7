// A small chart over time: one or more lines with the same axes. Dragging over it chooses a part of the time.

import { element, svg } from './dom.js';
import { clock } from './texts.js';

const [WIDTH, HEIGHT, TOP, BOTTOM, LEFT] = [320, 132, 8, 18, 46];
const INNER = WIDTH - LEFT - 4;

// `lines` are `{ name, values, kind }`; `times` the moments of the values; `write(value)` gives a value with its unit;
// `onZoom(from, to)` is told the chosen moments.
export function chart({ title, lines, times, write, onZoom }) {
  const most = Math.max(...lines.flatMap((line) => line.values.map((value) => value ?? 0)), 0) || 1;
  const x = (index) => LEFT + (index / Math.max(1, times.length - 1)) * INNER;
  const y = (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - TOP - BOTTOM);
  const now = element('span', { class: 'now quiet' }, latest(lines, write));
  const shade = svg('rect', { class: 'shade', y: TOP, height: HEIGHT - TOP - BOTTOM, width: 0 });
  const cursor = svg('line', { class: 'cursor', y1: TOP, y2: HEIGHT - BOTTOM, x1: -9, x2: -9 });
  const picture = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: 'chart', role: 'img', 'aria-label': `${title}: ${latest(lines, write)}`, pointerdown: begin, pointermove: move, pointerup: end, pointerleave: leave, pointercancel: cancel },
    [0, 0.5, 1].map((part) => [
      svg('line', { class: 'grid', x1: LEFT, x2: WIDTH - 4, y1: y(most * part), y2: y(most * part) }),
      svg('text', { x: LEFT - 6, y: y(most * part) + 4, 'text-anchor': 'end' }, write(most * part)),
    ]),
    [0, times.length - 1].map((index) => times[index] && svg('text', { x: x(index), y: HEIGHT - 4, 'text-anchor': index ? 'end' : 'start' }, clock(times[index]).slice(0, 5))),
    lines.map((line) => segments(line.values, x, y).map((points) => svg('polyline', { class: `series ${line.kind}`, points }))),
    shade, cursor);
  let from = null;
  return element('figure', { class: 'small' },
    element('figcaption', {}, element('b', {}, title), ' ', now), picture,
    lines.length > 1 && element('p', { class: 'legend quiet' }, lines.map((line) => [element('span', { class: `key ${line.kind}`, 'aria-hidden': 'true' }), `${line.name} `])));

  function indexAt(event) {
    const box = picture.getBoundingClientRect();
    const part = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / INNER;
    return Math.min(times.length - 1, Math.max(0, Math.round(part * (times.length - 1))));
  }
  function begin(event) {
    from = indexAt(event);
    picture.classList.add('dragging');
    picture.setPointerCapture(event.pointerId);
  }
  function move(event) {
    const index = indexAt(event);
    if (!times[index]) return;
    cursor.setAttribute('x1', x(index));
    cursor.setAttribute('x2', x(index));
    now.textContent = `${clock(times[index]).slice(0, 8)}: ${lines.map((line) => `${lines.length > 1 ? `${line.name} ` : ''}${line.values[index] === null ? '–' : write(line.values[index])}`).join(' · ')}`;
    if (from === null) return;
    shade.setAttribute('x', x(Math.min(from, index)));
    shade.setAttribute('width', Math.abs(x(index) - x(from)));
  }
  function end(event) {
    if (from === null) return;
    const to = indexAt(event);
    const [first, last] = [Math.min(from, to), Math.max(from, to)];
    cancel();
    if (last - first > 1) onZoom(times[first], times[last]);
  }
  function leave() {
    cursor.setAttribute('x1', -9);
    cursor.setAttribute('x2', -9);
    now.textContent = latest(lines, write);
  }
  function cancel() {
    from = null;
    picture.classList.remove('dragging');
    shade.setAttribute('width', 0);
  }
}

function latest(lines, write) {
  return lines.map((line) => {
    const value = [...line.values].reverse().find((one) => one !== null);
    return `${lines.length > 1 ? `${line.name} ` : ''}${value === undefined ? '–' : write(value)}`;
  }).join(' · ');
}

// A line breaks where there is no value.
function segments(values, x, y) {
  const made = [[]];
  values.forEach((value, index) => {
    if (value === null) made.push([]);
    else made.at(-1).push(`${x(index).toFixed(1)},${y(value).toFixed(1)}`);
  });
  return made.filter((points) => points.length).map((points) => (points.length === 1 ? [points[0], points[0]] : points).join(' '));
}
