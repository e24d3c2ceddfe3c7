// Small pieces that every page uses: times that stay relative, ids that are copied by a click, states, errors.

import { byId, element, unseen } from './dom.js';
import { explain, language, moment, text } from './texts.js';

const UNITS = [['second', 60], ['minute', 60], ['hour', 24], ['day', Infinity]];
const relative = new Intl.RelativeTimeFormat(language, { numeric: 'always', style: 'narrow' });

function words(iso) {
  let left = (Date.parse(iso) - Date.now()) / 1000;
  if (Math.abs(left) < 1) return text('time.now');
  for (const [unit, size] of UNITS) {
    if (Math.abs(left) < size) return relative.format(Math.trunc(left), unit);
    left /= size;
  }
  return moment(iso);
}

// "12 s ago", or "in 3 s"; the exact time in its title.
export const ago = (iso) => (iso ? element('time', { datetime: iso, title: moment(iso), 'data-relative': true }, words(iso)) : '–');

setInterval(() => {
  if (document.hidden) return;
  for (const one of document.querySelectorAll('time[data-relative]')) {
    const now = words(one.dateTime);
    if (one.textContent !== now) one.textContent = now;
  }
}, 1000);

// An id, shortened in the middle; a click copies the whole.
export function idOf(value) {
  if (!value) return '–';
  const short = value.length > 14 ? `${value.slice(0, 4)}…${value.slice(-6)}` : value;
  return element('button', { type: 'button', class: 'id', title: value, 'aria-label': text('id.copy', { id: value }), click: (event) => copy(event.currentTarget, value) }, short);
}

async function copy(button, value) {
  try {
    await navigator.clipboard.writeText(value);
  } catch {
    // Not over plain HTTP from another machine: then the older way.
    const field = element('textarea', { class: 'unseen' });
    field.value = value;
    document.body.append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
    button.focus();
  }
  button.classList.add('copied');
  say(text('id.copied'));
  setTimeout(() => button.classList.remove('copied'), 1500);
}

// Says a sentence to who hears the page.
export const say = (sentence) => { byId('aloud').textContent = sentence; };

export const SHAPES = { healthy: '●', degraded: '◐', failing: '▲', away: '○' };

// A state with its shape and its word; with `quiet`, the word is only heard.
export function stateOf(name, words = text(`state.${name}`), quiet = false) {
  return element('span', { class: `state ${name}` },
    element('span', { class: 'shape', 'aria-hidden': 'true' }, SHAPES[name]), ' ', quiet ? unseen(words) : words);
}

// An error where it happened: what failed, what to do, and the request id small below.
export function failure(problem, again = null) {
  return element('div', { class: 'error', role: 'alert' },
    element('p', {}, explain(problem)),
    again && element('button', { type: 'button', click: again }, text('error.again')),
    problem.requestId && element('p', {}, element('small', {}, text('error.request'), ' ', idOf(problem.requestId))));
}

// A list of names and values. What has no value is left out.
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return element('dl', { class: 'facts' }, known.map(([name, value]) => [element('dt', {}, name), element('dd', {}, value)]));
}
