// What must hold in the whole stack, whatever fails: each promise with how many were looked at.

import { call } from './api.js';
import { element, replace, table } from './dom.js';
import { every } from './live.js';
import { failure, stateOf } from './pieces.js';
import { count, hasText, text } from './texts.js';

const EVERY = 4000;
// Violations of one promise.
const SHOWN = 3;
const STATES = { holds: 'healthy', settling: 'degraded', broken: 'failing' };
// The first id in the words of a violation.
const ID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/;

export function showInvariants(place, signal) {
  const [above, list] = [element('div', {}), element('div', {})];
  place.append(element('h2', {}, text('lab.invariants')), element('p', { class: 'quiet' }, text('lab.invariants.why')), above, list);
  every(EVERY, refresh, signal);

  async function refresh() {
    try {
      const { invariants } = await call('GET', '/api/lab/invariants', { signal });
      list.classList.toggle('old', invariants === null);
      above.replaceChildren(...(invariants === null ? [stateOf('away', text('lab.invariants.none'))] : []));
      if (invariants !== null) replace(list, view(invariants));
    } catch (problem) {
      if (signal.aborted) return;
      list.classList.add('old');
      above.replaceChildren(failure(problem, refresh));
    }
  }
}

function view(invariants) {
  const rows = invariants.map(({ name, promise, checked, state, found, violations }) => element('tr', { 'data-invariant': name, 'data-state': state },
    element('td', {}, stateOf(STATES[state], text(`lab.state.${state}`))),
    element('td', { class: 'what' }, hasText(`lab.promise.${name}`) ? text(`lab.promise.${name}`) : promise, violations.length > 0 && shown(violations, found)),
    element('td', { class: 'much' }, count(checked))));
  return table(text('lab.invariants'), [[text('lab.invariants.state')], [text('lab.invariants.promise')], [text('lab.invariants.checked'), 'much']], element('tbody', {}, rows));
}

function shown(violations, found) {
  const more = found - Math.min(SHOWN, violations.length);
  return element('ul', { class: 'plain small' }, violations.slice(0, SHOWN).map(violation), more > 0 && element('li', {}, text('lab.invariants.more', { count: count(more) })));
}

// With a link to the order that it names.
function violation(words) {
  const found = /order/.test(words) && ID.exec(words)?.[0];
  return element('li', {}, words, found && [' ', element('a', { href: `/orders/${found}` }, text('lab.invariants.order'))]);
}
