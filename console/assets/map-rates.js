// How many requests each replica gets: from the gateway's counters in the last maps. This is what a strategy does.

const WINDOW = 10000;
let kept = [];

export function remember(map) {
  const at = Date.parse(map.at);
  if (kept.at(-1)?.at >= at) return;
  const counts = new Map(map.nodes.flatMap((node) => node.replicas.map((replica) => [`${node.id}/${replica.id}`, replica.requests])));
  kept = [...kept.filter((one) => at - one.at <= WINDOW), { at, counts }];
}

// Requests per second in the last ten seconds; null while nobody knows.
export function rateOf(node, replica) {
  const key = `${node.id}/${replica.id}`;
  const first = kept.find((one) => one.counts.has(key));
  const last = kept.at(-1);
  if (!first || first === last || !last.counts.has(key)) return null;
  // A new process counts from zero.
  return Math.max(0, last.counts.get(key) - first.counts.get(key)) / ((last.at - first.at) / 1000);
}
