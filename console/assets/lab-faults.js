// The faults of the lab, as cards: which there are, what they are called, and which replicas can have them. Pure.

import { text } from './texts.js';

// The card network is what the payments depend on, so its faults have cards and words of their own.
const CARD_NETWORK = 'card-network';
const OF_CARD_NETWORK = { refuse: 'card_down', slow: 'card_slow', lost_answers: 'card_silent' };
const ORDER = ['kill', 'pause', 'refuse', 'slow', 'errors', 'lost_answers', 'database_locked', 'messages_duplicated', 'messages_reordered', 'messages_delayed', 'clock_ahead',
  'card_down', 'card_slow', 'card_silent'];

// The card of a fault of a program.
export const cardOf = (program, fault) => (program === CARD_NETWORK && OF_CARD_NETWORK[fault]) || fault;

export const nameOf = (card) => text(`lab.fault.${card}`);
export const explained = (card) => text(`lab.what.${card}`);

// `{ card, fault, replicas }` for each fault that some replica can have, in a fixed order; those of unknown names last.
export function cards(replicas) {
  const found = new Map();
  for (const replica of replicas) {
    for (const fault of replica.offers) {
      const card = cardOf(replica.program, fault);
      if (!found.has(card)) found.set(card, { card, fault, replicas: [] });
      found.get(card).replicas.push(replica);
    }
  }
  const place = ({ card }) => (ORDER.includes(card) ? ORDER.indexOf(card) : ORDER.length);
  return [...found.values()].sort((one, other) => place(one) - place(other));
}

// A replica with its program, unless that has one replica.
export const whole = ({ program, replica }) => (replica === program ? program : `${program} · ${replica}`);

// One running fault in the banner.
export const faultWords = (one) => text('lab.running', { fault: nameOf(cardOf(one.program, one.fault)), replica: whole(one) });
