// Where each node of the map is, and each end of an edge. Pure.
//
// The program says in which column a node is: from the caller to the store. Here every service gets a row of its own,
// so that an edge past a column does not go through a node; what only one service uses is in its row.

const WIDTH = { clients: 84, gateway: 132, service: 156 };
const OTHER = 172;
const GAP = 132;
// Where edges bend back to their own column, with labels of their own.
const WIDE_GAP = 290;
const SHORT_GAP = 48;
const MARGIN = 12;
// Below the last row, for the names of canaries.
const BELOW = 22;
const HEIGHT = 58;
const PORT = 34;
const SPACE = 26;

// Without labels, edges may be short.
export function layout(nodes, edges, { hasLabels = true } = {}) {
  const known = new Set(nodes.map((node) => node.id));
  const used = edges.filter((edge) => known.has(edge.from) && known.has(edge.to));
  const boxes = new Map(nodes.map((node) => [node.id, { node, w: WIDTH[node.kind] ?? OTHER, h: heightOf(node, used) }]));
  placeColumns(boxes, used, hasLabels ? [GAP, WIDE_GAP] : [SHORT_GAP, 2 * SHORT_GAP]);
  const height = placeRows(boxes, used);
  const width = Math.max(...[...boxes.values()].map((box) => box.x + box.w)) + MARGIN;
  return { boxes, lines: connect(boxes, used), width, height };
}

// High enough for the busier of its sides.
function heightOf(node, edges) {
  const coming = edges.filter((edge) => edge.to === node.id).length;
  const going = edges.filter((edge) => edge.from === node.id).length;
  return Math.max(HEIGHT, Math.max(coming, going) * PORT + 8);
}

function placeColumns(boxes, edges, [gap, wideGap]) {
  const columnOf = (id) => boxes.get(id).node.column;
  const bent = new Set(edges.filter((edge) => columnOf(edge.from) === columnOf(edge.to)).map((edge) => columnOf(edge.from)));
  const columns = [...new Set([...boxes.values()].map((box) => box.node.column))].sort((a, b) => a - b);
  let x = MARGIN;
  for (const column of columns) {
    const inside = [...boxes.values()].filter((box) => box.node.column === column);
    inside.forEach((box) => { box.x = x; });
    x += Math.max(...inside.map((box) => box.w)) + (bent.has(column) ? wideGap : gap);
  }
}

function placeRows(boxes, edges) {
  const all = [...boxes.values()];
  const services = all.filter((box) => box.node.kind === 'service').sort((a, b) => a.node.column - b.node.column || (a.node.name < b.node.name ? -1 : 1));
  const users = (id) => services.filter((box) => edges.some((edge) => (edge.from === box.node.id && edge.to === id) || (edge.to === box.node.id && edge.from === id)));
  const ends = all.filter((box) => !['clients', 'gateway', 'service'].includes(box.node.kind));
  let y = MARGIN;
  for (const service of services) {
    const own = ends.filter((box) => users(box.node.id)[0] === service && users(box.node.id).length === 1);
    const needed = own.reduce((sum, box) => sum + box.h + SPACE, -SPACE);
    const row = Math.max(service.h, needed);
    service.y = y + (row - service.h) / 2;
    stack(own, y + (row - Math.max(needed, 0)) / 2);
    y += row + SPACE;
  }
  const shared = ends.filter((box) => box.y === undefined);
  y = stack(shared, y);
  const middle = (y - SPACE) / 2;
  const callers = all.filter((box) => ['clients', 'gateway'].includes(box.node.kind));
  callers.forEach((box) => { box.y = Math.max(MARGIN, middle - box.h / 2); });
  return Math.max(y - SPACE, ...callers.map((box) => box.y + box.h)) + BELOW;
}

// Puts boxes below each other; returns where the next one would be.
function stack(boxes, y) {
  return boxes.reduce((top, box) => {
    box.y = top;
    return top + box.h + SPACE;
  }, y);
}

// Each edge as a curve between the sides that face each other. The ends at one side are spread over it, in the order of
// the other ends, so that curves do not cross without need.
function connect(boxes, edges) {
  const lines = edges.map((edge) => {
    const [from, to] = [boxes.get(edge.from), boxes.get(edge.to)];
    const forward = to.x >= from.x + from.w;
    const backward = from.x >= to.x + to.w;
    return { edge, from, to, out: backward ? 'left' : 'right', into: forward ? 'left' : 'right' };
  });
  for (const box of boxes.values()) {
    for (const side of ['left', 'right']) {
      const here = lines.flatMap((line) => [
        ...(line.from === box && line.out === side ? [{ line, end: 'start', other: line.to }] : []),
        ...(line.to === box && line.into === side ? [{ line, end: 'stop', other: line.from }] : []),
      ]).sort((a, b) => a.other.y + a.other.h / 2 - (b.other.y + b.other.h / 2));
      here.forEach(({ line, end }, index) => {
        line[end] = { x: side === 'left' ? box.x : box.x + box.w, y: box.y + ((index + 1) * box.h) / (here.length + 1), side };
      });
    }
  }
  return lines;
}
