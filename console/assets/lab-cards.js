// The faults of the lab as cards: started by a button, ended by themselves or by another one.

import { call } from './api.js';
import { byId, element, replace, withLoadingText } from './dom.js';
import { cardOf, cards, explained, nameOf, whole } from './lab-faults.js';
import { every } from './live.js';
import { ago, failure, say, stateOf } from './pieces.js';
import { count, text } from './texts.js';

const EVERY = 2000;
const SECONDS = 20;

export function showCards(place, signal) {
  const [above, list] = ['above', 'cards'].map((id) => element('div', { id, class: id }));
  let known = '';
  place.append(element('h2', {}, text('lab.faults')), above, list);
  every(EVERY, refresh, signal);

  async function refresh() {
    try {
      const asked = call('GET', '/api/lab', { signal });
      const { replicas } = await (known ? asked : withLoadingText(above, text('loading'), asked));
      above.replaceChildren();
      list.classList.remove('old');
      const silent = replicas.filter((one) => one.offers.length === 0).map(whole);
      if (silent.length) above.replaceChildren(stateOf('degraded', text('missing', { names: silent.join(', ') })));
      update(replicas);
    } catch (problem) {
      if (signal.aborted) return;
      list.classList.add('old');
      above.replaceChildren(failure(problem, refresh));
    }
  }

  // A card is left alone as long as it has the same replicas: somebody may be choosing one.
  function update(replicas) {
    const all = cards(replicas);
    const as = JSON.stringify(all.map(({ card, replicas: of }) => [card, of.map((one) => one.replica)]));
    if (as !== known) replace(list, all.map(cardView));
    known = as;
    all.forEach(({ card }, index) => showRunning(list.children[index].querySelector('ul'), runningOf(card, replicas)));
  }

  // What is chosen stays chosen: the card before is still there.
  function cardView({ card, fault, replicas }) {
    const chosen = byId(`where-${card}`)?.value;
    const names = replicas.map(({ program, replica }) => {
      const value = `${program}/${replica}`;
      return element('option', { value, selected: value === chosen }, whole({ program, replica }));
    });
    const where = element('select', { id: `where-${card}` }, names);
    const trouble = element('div', {});
    const go = element('button', { type: 'button', id: `start-${card}`, 'data-row': true, click: start }, text(card === 'kill' ? 'lab.kill' : 'lab.start', { seconds: SECONDS }));
    return element('article', { class: 'fault', 'data-card': card },
      element('h3', {}, nameOf(card)), element('p', { class: 'quiet' }, explained(card)),
      element('div', { class: 'row' }, element('label', { class: 'unseen', for: where.id }, text('lab.where')), where, go),
      trouble, element('ul', { class: 'plain' }));

    function start() {
      const { program, replica } = replicas[where.selectedIndex];
      return act(go, trouble, () => call('POST', '/api/lab/faults', { body: { program, replica, fault, seconds: SECONDS } }));
    }
  }

  async function act(button, trouble, send) {
    if (button.getAttribute('aria-busy') === 'true') return;
    button.setAttribute('aria-busy', 'true');
    trouble.replaceChildren();
    try {
      await send();
      say(text('ask.done'));
      await refresh();
    } catch (problem) {
      trouble.replaceChildren(failure(problem));
    } finally {
      button.setAttribute('aria-busy', 'false');
    }
  }

  // A row is left alone as long as its fault runs, except for its figures: somebody may be clicking on its button.
  function showRunning(where, running) {
    const as = JSON.stringify(running.map(({ program, replica, fault }) => [program, replica, fault]));
    if (where.dataset.as !== as) replace(where, running.map(runningRow));
    where.dataset.as = as;
    running.forEach(({ left_s: left, times }, index) => {
      const [ends, acted] = where.children[index].querySelectorAll('.ends, .acted');
      ends.replaceChildren(text('lab.ends'), ' ', ago(new Date(Date.now() + left * 1000).toISOString()));
      acted.textContent = text('lab.acted', { count: count(times) });
      acted.dataset.times = times;
    });
  }

  function runningRow({ program, replica, fault }) {
    const trouble = element('span', {});
    const end = element('button', { type: 'button', class: 'second end', id: `end-${fault}-${replica}`, click: () => act(end, trouble, () => call('DELETE', path)) }, text('lab.end'));
    const path = `/api/lab/faults/${[program, replica, fault].map(encodeURIComponent).join('/')}`;
    return element('li', { class: 'row', 'data-running': replica },
      stateOf('failing', whole({ program, replica })), element('span', { class: 'ends' }), element('span', { class: 'quiet acted' }), end, trouble);
  }
}

// The running faults of a card, with the replicas that have them.
function runningOf(card, replicas) {
  const all = replicas.flatMap(({ program, replica, running, injected }) => running.map((one) => ({ program, replica, times: injected[one.fault] ?? 0, ...one })));
  return all.filter(({ program, fault }) => cardOf(program, fault) === card);
}
