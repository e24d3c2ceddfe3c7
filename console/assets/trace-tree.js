// Spans and log lines of a trace in the order of a waterfall: each under its cause. Pure.

// Rows `{ depth, span }` and `{ depth, log }`. A span has its parent's end as `since` if it began after that, its number
// as `attempt` if its caller tried more than once, and the time that is its own as `own`.
export function rows({ spans, logs }) {
  const known = new Map(spans.map((span) => [span.id, span]));
  const below = new Map();
  const parentOf = (id, links = []) => (known.has(id) ? id : links.map((link) => link.span_id).find((one) => known.has(one)) ?? '');
  const put = (parent, row) => (below.has(parent) ? below.get(parent).push(row) : below.set(parent, [row]));
  spans.forEach((span) => put(parentOf(span.parent_id, span.links), { at: span.offset_ms, span }));
  logs.forEach((log) => put(parentOf(log.span_id), { at: log.offset_ms, log }));
  below.forEach((list) => list.sort((a, b) => a.at - b.at));
  const [seen, made] = [new Set(), []];
  walk(children('', 0));
  // A circle of parents has no beginning: such spans come last.
  spans.forEach((span) => walk([{ depth: 0, span }]));
  return made;

  function children(id, depth) {
    const list = below.get(id) ?? [];
    const tries = attempts(list);
    return list.map((row) => ({ ...row, depth, attempt: tries.get(row.span?.id) }));
  }

  // Without recursion: a trace may be deeper than calls can be.
  function walk(list) {
    const waiting = list.reverse();
    while (waiting.length) {
      const { depth, span, log, attempt } = waiting.pop();
      if (log) made.push({ depth, log });
      if (log || seen.has(span.id)) continue;
      seen.add(span.id);
      const parent = known.get(parentOf(span.parent_id, span.links));
      const end = parent ? parent.offset_ms + parent.duration_ms : Infinity;
      const inside = children(span.id, depth + 1);
      made.push({ depth, span, attempt, since: end < span.offset_ms ? end : null, own: own(span, inside.flatMap((row) => row.span ?? [])) });
      inside.reverse().forEach((row) => waiting.push(row));
    }
  }
}

// Calls of one parent to the same name are attempts, if there are several. A span may say its own number.
function attempts(list) {
  const calls = list.flatMap(({ span }) => (span?.kind === 'client' ? [span] : []));
  const same = Map.groupBy(calls, (span) => JSON.stringify([span.name, target(span)]));
  const numbers = new Map();
  for (const again of same.values()) {
    again.forEach((span, index) => {
      const said = span.attributes['http.request.resend_count'];
      if (said !== undefined || again.length > 1) numbers.set(span.id, said === undefined ? index + 1 : Number(said) + 1);
    });
  }
  return numbers;
}

const target = ({ attributes }) => attributes['url.path'] ?? attributes['url.full'] ?? attributes['db.operation.name'] ?? '';

// The parts of a span that none of its children covers: `[from, to]` in milliseconds.
function own(span, children) {
  const parts = [];
  let at = span.offset_ms;
  const end = span.offset_ms + span.duration_ms;
  for (const child of [...children].sort((a, b) => a.offset_ms - b.offset_ms)) {
    if (child.offset_ms > at) parts.push([at, Math.min(end, child.offset_ms)]);
    at = Math.max(at, child.offset_ms + child.duration_ms);
    if (at >= end) return parts;
  }
  return [...parts, [at, end]];
}
