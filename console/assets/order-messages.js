// The messages of one order: each from its sender's outbox to its receiver's inbox.

import { call } from './api.js';
import { element, replace, table, withLoadingText } from './dom.js';
import { every } from './live.js';
import { ago, failure, idOf, stateOf } from './pieces.js';
import { clock, count, duration, moment, text } from './texts.js';

const EVERY = 3000;
const HEADS = ['state', 'type', 'way', 'written', 'sent', 'handled'];

export function showMessages(place, id, signal) {
  const above = element('div', {});
  const list = element('div', { id: 'messages-list' });
  let as = '';
  const close = element('a', { href: location.pathname, class: 'close', 'data-close': true, 'aria-label': text('order.messages.close') }, '×');
  place.replaceChildren(element('h2', { id: 'messages-title', tabindex: -1 }, text('order.messages')), close, element('p', { class: 'quiet' }, text('order.messages.kept')), above, list);
  every(EVERY, refresh, signal);

  async function refresh() {
    try {
      const asked = call('GET', `/api/orders/${encodeURIComponent(id)}/messages`, { signal });
      const { messages, missing } = await (as ? asked : withLoadingText(above, text('loading'), asked));
      above.replaceChildren(...(missing.length ? [stateOf('degraded', text('missing', { names: missing.join(', ') }))] : []));
      list.classList.remove('old');
      const now = JSON.stringify([messages, missing]);
      // What has not changed is not built again: a payload may be open.
      if (now !== as) render(messages, missing);
      as = now;
    } catch (problem) {
      if (signal.aborted) return;
      list.classList.add('old');
      above.replaceChildren(failure(problem, refresh));
    }
  }

  function render(messages, missing) {
    const open = new Set([...list.querySelectorAll('tr:has(details[open])')].map((one) => one.dataset.message));
    const rows = messages.map((message) => row(message, missing, open.has(message.id)));
    replace(list, rows.length
      ? table(text('order.messages'), HEADS.map((name) => [text(`order.messages.${name}`)]), element('tbody', {}, rows))
      : missing.length === 0 && element('p', { class: 'quiet' }, text('order.messages.none')));
  }
}

function row(message, missing, isOpen) {
  const { id, type, source, destination, written_at: written, received } = message;
  const state = stateOfMessage(message, missing);
  return element('tr', { 'data-message': id, 'data-is': state },
    element('td', {}, stateOf(STATES[state], text(`order.message.${state}`))),
    element('td', { class: 'what' }, element('b', { class: 'steady' }, type), ' ', idOf(id), errors(message), payload(message, isOpen)),
    element('td', {}, source ?? '–', ' → ', destination),
    element('td', {}, written ? at(written) : '–'),
    element('td', {}, sent(message)),
    element('td', {}, received?.handled_at ? [at(received.handled_at, written), attempts(received.failures + (received.is_dead_letter ? 0 : 1))] : '–'));
}

const STATES = { handled: 'healthy', dead: 'failing', discarded: 'failing', sent: 'degraded', waits: 'degraded', unknown: 'away' };

function stateOfMessage(message, missing) {
  const { is_dead_letter: dead, sent_at: sentAt, source, destination, received } = message;
  if (message.is_discarded || received?.is_discarded) return 'discarded';
  if (dead || received?.is_dead_letter) return 'dead';
  if (received?.handled_at) return 'handled';
  if (source && !sentAt) return 'waits';
  return !source || missing.includes(destination) ? 'unknown' : 'sent';
}

// With the time since the message was written, if that is known. The clocks of two databases may differ.
function at(iso, written = null) {
  const delay = Math.max(0, Date.parse(iso) - Date.parse(written));
  return [element('time', { datetime: iso, title: moment(iso) }, clock(iso)), written && element('span', { class: 'quiet steady' }, ` (+${duration(delay)})`)];
}

const attempts = (number) => number > 1 && element('div', { class: 'quiet small' }, text('order.message.attempts', { count: count(number) }));

function sent({ source, written_at: written, sent_at: sentAt, failures, is_dead_letter: dead, next_attempt_at: next }) {
  if (!source) return '–';
  if (dead) return [text('messages.since'), ' ', at(sentAt, written), attempts(failures)];
  if (sentAt) return [at(sentAt, written), attempts(failures + 1)];
  const when = Date.parse(next) > Date.now() ? [text('order.message.next'), ' ', ago(next)] : text('order.message.soon');
  return [when, failures > 0 && attempts(failures)];
}

function errors({ last_error: lost, received }) {
  return [lost, received?.last_error].filter(Boolean).map((error) => element('div', { class: 'small' }, text('order.last_error'), ': ', error));
}

function payload({ id, source, data }, isOpen) {
  if (!source) return element('div', { class: 'quiet small' }, text('order.message.deleted'));
  return element('details', { open: isOpen }, element('summary', { id: `payload-${id}`, 'data-row': true }, text('messages.payload')), element('pre', {}, JSON.stringify(data, null, 2)));
}
