// The canary of a route in words: its version, with its share or what became of it. Pure.

import { percent, text } from './texts.js';

export function canaryWords({ shares, canary: { version, state } }) {
  return text(state === 'rolled_back' ? 'map.canary.rolled_back' : 'map.canary.share', { version, share: percent(shares[version] ?? 0) });
}

// The canaries of a service; several routes may have the same.
export function canariesOf(node, routes) {
  const own = routes.filter((route) => node.kind === 'service' && route.service === node.name && route.versions?.canary);
  return [...new Set(own.map((route) => canaryWords(route.versions)))];
}
