// Messages between services: what waits to be sent, what was refused, and what can be done about it.

import { call } from './api.js';
import { asking } from './ask.js';
import { element, replace, table, withLoadingText } from './dom.js';
import { every } from './live.js';
import { ago, facts, failure, idOf, stateOf } from './pieces.js';
import { count, duration, rate, text } from './texts.js';

const EVERY = 3000;
// An outbox that is older than this is not just busy.
const OLD_S = 10;

export function show(place, { signal }) {
  const [above, services, letters] = ['', 'services', 'letters'].map((id) => element('div', { id }));
  const shown = new Map();
  place.append(element('h1', {}, text('page.messages')), above, services, element('h2', {}, text('messages.dead')), letters);
  every(EVERY, refresh, signal);

  async function refresh() {
    try {
      const asked = call('GET', '/api/messages', { signal });
      const answer = await (services.children.length ? asked : withLoadingText(above, text('loading'), asked));
      above.replaceChildren(...(answer.missing.length ? [stateOf('degraded', text('missing', { names: answer.missing.join(', ') }))] : []));
      services.classList.remove('old');
      replace(services, overview(answer.services));
      showLetters(answer.services.flatMap((service) => service.dead_letters.map((letter) => ({ service: service.name, letter }))));
    } catch (problem) {
      if (signal.aborted) return;
      services.classList.add('old');
      above.replaceChildren(failure(problem, refresh));
    }
  }

  // A letter that is shown already is left alone: it may be open.
  function showLetters(all) {
    const keys = new Set(all.map(({ letter }) => letter.id));
    for (const [id, made] of shown) {
      if (keys.has(id)) continue;
      made.remove();
      shown.delete(id);
    }
    for (const one of all.filter(({ letter }) => !shown.has(letter.id))) {
      const made = letterView(one, refresh);
      shown.set(one.letter.id, made);
      letters.append(made);
    }
    letters.querySelector('#empty')?.remove();
    if (all.length === 0) letters.append(element('p', { id: 'empty', class: 'quiet' }, text('messages.none')));
  }
}

function overview(services) {
  if (services.length === 0) return element('p', { class: 'quiet' }, text('messages.no_services'));
  const heads = ['service', 'state', 'pending', 'oldest', 'lag', 'handled', 'dead_count'];
  return table(text('messages.title'), heads.map((name) => [text(`messages.${name}`), ['service', 'state'].includes(name) ? '' : 'much']),
    element('tbody', {}, services.map(({ name, outbox, dead_letters: dead, lag_ms: lag, rate: handled }) => element('tr', { 'data-service': name },
      element('td', {}, name),
      element('td', {}, stateOfOutbox(outbox, dead)),
      element('td', { class: 'much' }, outbox ? count(outbox.pending) : '–'),
      element('td', { class: 'much' }, outbox?.oldest_age_s ? duration(outbox.oldest_age_s * 1000) : '–'),
      element('td', { class: 'much' }, duration(lag)),
      element('td', { class: 'much' }, rate(handled ?? 0)),
      element('td', { class: 'much' }, count(dead.length))))));
}

function stateOfOutbox(outbox, dead) {
  if (dead.length) return stateOf('failing', text('messages.has_dead'));
  if (!outbox) return stateOf('away', text('messages.no_outbox'));
  return outbox.oldest_age_s > OLD_S ? stateOf('degraded', text('messages.waits')) : stateOf('healthy', text('messages.flows'));
}

function letterView({ service, letter }, done) {
  const path = `/api/messages/${encodeURIComponent(service)}/${encodeURIComponent(letter.id)}`;
  const values = { type: letter.type, service };
  return element('article', { class: 'letter', 'data-letter': letter.id },
    element('h3', {}, stateOf('failing', letter.type), ' · ', service),
    element('p', {}, letter.last_error),
    facts([
      [text('messages.id'), idOf(letter.id)],
      [text('messages.subject'), idOf(letter.subject)],
      [text('messages.source'), letter.source],
      [text('messages.attempts'), count(letter.attempts)],
      [text('messages.since'), ago(letter.at)],
    ]),
    element('details', {}, element('summary', { 'data-row': true }, text('messages.payload')), element('pre', {}, JSON.stringify(letter.data, null, 2))),
    element('p', { class: 'row' },
      asking(text('messages.replay'), () => ({ title: text('messages.replay.title'), words: text('messages.replay.ask', values), yes: text('messages.replay'), path: `${path}/replay`, done }), { class: 'second replay' }),
      asking(text('messages.discard'), () => ({ title: text('messages.discard.title'), words: text('messages.discard.ask', values), yes: text('messages.discard'), method: 'DELETE', path, danger: true, done }), { class: 'second discard' })));
}
