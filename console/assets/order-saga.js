// The first two columns of an order: the saga's steps, and what happened as sentences.

import { element } from './dom.js';
import { steps } from './order-steps.js';
import { ago, facts, idOf } from './pieces.js';
import { clock, duration, hasText, moment, text, word } from './texts.js';

const SHAPES = { done: '✓', undone: '↩', undoing: '↩', now: '⟳', stuck: '▲', failed: '✕', skipped: '–', todo: '·' };

export function sagaColumn(detail) {
  return element('section', { class: 'column', 'aria-labelledby': 'saga-title' },
    element('h2', { id: 'saga-title' }, text('order.saga')),
    element('ol', { class: 'steps' }, steps(detail).map(({ name, is, move }) => element('li', { class: is, 'data-step': name, 'data-is': is },
      element('span', { class: 'shape', 'aria-hidden': 'true' }, SHAPES[is]),
      element('div', {}, element('b', {}, text(`step.${name}`)), ' ', element('span', { class: 'quiet' }, text(`step.is.${is}`)),
        move && element('p', { class: 'quiet' }, exact(move.at), move.instance && ` · ${move.instance}`),
        ['now', 'stuck', 'undoing'].includes(is) && waits(detail.saga))))));
}

const exact = (iso) => element('time', { datetime: iso, title: moment(iso) }, clock(iso));

// What the saga waits for, and until when.
function waits(saga) {
  return element('div', { class: 'waits' },
    element('p', {}, text(`waits.${saga.state === 'stuck' ? 'stuck' : saga.step}`)),
    facts([
      [text('order.attempts'), saga.attempts],
      [text('order.next'), saga.next_attempt_at && ago(saga.next_attempt_at)],
      [text('order.last_error'), saga.last_error],
    ]));
}

export function storyColumn({ timeline, traces }) {
  const kept = new Set(traces.filter((trace) => trace.is_kept).map((trace) => trace.id));
  return element('section', { class: 'column', 'aria-labelledby': 'story-title' },
    element('h2', { id: 'story-title' }, text('order.story')),
    element('ol', { class: 'story' }, timeline.map((move, index) => entry(move, timeline[index - 1], kept))));
}

function entry(move, before, kept) {
  const delay = before ? Date.parse(move.at) - Date.parse(before.at) : null;
  return element('li', {},
    element('p', { class: 'quiet' }, exact(move.at), delay !== null && ` (+${duration(delay)})`, move.instance && ` · ${move.instance}`),
    element('p', {}, sentence(move)),
    element('p', { class: 'quiet small' },
      move.message_id && [text('order.message'), ' ', idOf(move.message_id), ' '],
      move.attempt > 1 && [text('order.attempt', { number: move.attempt }), ' '],
      move.trace_id && kept.has(move.trace_id) && element('a', { href: `/traces/${encodeURIComponent(move.trace_id)}` }, text('order.trace'))));
}

// "The payment was captured: confirmed."
function sentence(move) {
  const what = hasText(`story.${move.cause}`) ? text(`story.${move.cause}`) : move.cause;
  return move.from === move.to ? text('story.same', { what }) : text('story.becomes', { what, status: word('status', move.to) });
}
