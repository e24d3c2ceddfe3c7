// Times that stay relative, and ids that are copied by a click.

import { element } from './dom.js';
import { language, moment, text } from './texts.js';

const UNITS = [['second', 60], ['minute', 60], ['hour', 24], ['day', 30]];
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

// "12 s ago"; the exact time in its title.
export const ago = (iso) => element('time', { datetime: iso, title: moment(iso), 'data-relative': true }, words(iso));

setInterval(() => {
  if (document.hidden) return;
  for (const one of document.querySelectorAll('time[data-relative]')) {
    const now = words(one.dateTime);
    if (one.textContent !== now) one.textContent = now;
  }
}, 1000);

// An id, shortened in the middle; a click copies the whole.
export function idOf(value) {
  const short = value.length > 14 ? `${value.slice(0, 4)}…${value.slice(-6)}` : value;
  return element('button', { type: 'button', class: 'id', title: value, 'aria-label': text('id.copy', { id: value }), click: ({ currentTarget }) => copy(currentTarget, value) }, short);
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
  setTimeout(() => button.classList.remove('copied'), 1500);
}
