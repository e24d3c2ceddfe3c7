// One sentence about the whole system, true at a glance, and the address of what is wrong. Pure.

import { text } from './texts.js';

const RANK = { healthy: 0, degraded: 1, failing: 2, away: 3 };

export function summary({ nodes, missing, attention }) {
  if (missing.includes('gateway')) return { state: 'away', words: text('sentence.no_gateway'), href: '/' };
  const worst = [...nodes].sort((a, b) => RANK[b.state] - RANK[a.state])[0];
  const replicas = nodes.flatMap((node) => node.replicas.filter((replica) => replica.state !== 'healthy').map((replica) => ({ node, replica })));
  if (replicas.length === 1) {
    const [{ node, replica }] = replicas;
    // One replica of several is away: the service still answers.
    const state = RANK[node.state] > RANK.degraded ? node.state : 'degraded';
    return { state, words: text('sentence.replica', { id: replica.id, state: text(`state.${replica.state}`) }), href: replicaAddress(node, replica) };
  }
  if (replicas.length > 1) return { state: worst && RANK[worst.state] > 1 ? worst.state : 'degraded', words: text('sentence.replicas', { count: replicas.length }), href: replicaAddress(replicas[0].node, replicas[0].replica) };
  if (worst && worst.state !== 'healthy') return { state: worst.state, words: text('sentence.node', { name: worst.name, state: text(`state.${worst.state}`) }), href: nodeAddress(worst) };
  // What programs cannot solve waits for a person.
  const [waiting] = attention.filter((one) => one.code !== 'replicas');
  if (waiting) return { state: 'degraded', words: text(`sentence.${waiting.code}`, { count: waiting.count }), href: waiting.href };
  return { state: 'healthy', words: text('sentence.well'), href: '/' };
}

export const nodeAddress = (node) => `/?node=${encodeURIComponent(node.id)}`;
export const replicaAddress = (node, replica) => `/?node=${encodeURIComponent(node.id)}&replica=${encodeURIComponent(replica.id)}`;
