// Numbers as a small line, with errors below it as bars. Without axes: the exact figures are beside it.

import { svg } from './dom.js';

const [WIDTH, HEIGHT] = [240, 36];

export function sparkline(values, errors = [], label = '') {
  const most = Math.max(...values, 0.1);
  const x = (index) => (index / Math.max(1, values.length - 1)) * WIDTH;
  const y = (value) => HEIGHT - 2 - (value / most) * (HEIGHT - 4);
  const line = values.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
  return svg('svg', { class: 'spark', viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    svg('polyline', { class: 'base', points: `0,${HEIGHT - 1} ${WIDTH},${HEIGHT - 1}` }),
    svg('polyline', { points: line }),
    errors.map((value, index) => value > 0 && svg('line', { class: 'bad', x1: x(index), x2: x(index), y1: HEIGHT, y2: Math.min(HEIGHT - 6, y(value)) })));
}
