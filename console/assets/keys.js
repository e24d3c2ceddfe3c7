// The keyboard: / searches, j and k go through the rows, Enter opens, Esc closes, ? explains.

import { element } from './dom.js';
import { text } from './texts.js';

const KEYS = ['/', 'j', 'k', 'Enter', 'Esc', '?'];
const isField = (one) => one.matches('input:not([type=checkbox], [type=range]), textarea, select');
const ITEM = ':is(tr, li, article):has([data-row])';
const OPEN = '[data-row][aria-expanded="true"], details[open] > [data-row]';

// `openSearch` leads to a view with a search, from one that has none.
export function startKeys(openSearch) {
  document.addEventListener('keydown', (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector('dialog[open]')) return;
    if (key === 'Escape') return close(target);
    if (isField(target)) return;
    const act = { '/': () => search(openSearch), j: () => step(1), k: () => step(-1), '?': showHelp }[key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

const visible = (selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility());
const field = () => document.querySelector('[data-search]');

async function search(openSearch) {
  if (!field()) await openSearch();
  field()?.focus();
}

// The next or previous row; a row is the link or button that opens it.
function step(by) {
  const rows = visible('[data-row]');
  const at = rows.indexOf(document.activeElement.closest('[data-row]') ?? document.activeElement.closest(ITEM)?.querySelector('[data-row]'));
  const next = rows[at === -1 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by))];
  next?.focus();
  next?.scrollIntoView({ block: 'nearest' });
}

// A field first gives the focus back. Then the row at the focus is closed, if it is open; then what was opened last.
function close(target) {
  if (isField(target)) return target.blur();
  const row = target.closest(ITEM)?.querySelector(OPEN);
  (row ?? visible('[data-close]').at(-1))?.click();
  row?.focus();
}

export function showHelp() {
  const dialog = element('dialog', { 'aria-labelledby': 'keys-title', close: () => dialog.remove() },
    element('h2', { id: 'keys-title' }, text('keys.title')),
    element('dl', { class: 'facts' }, KEYS.map((key) => [element('dt', {}, element('kbd', {}, key)), element('dd', {}, text(`keys.${key}`))])),
    element('p', { class: 'row' }, element('button', { type: 'button', click: () => dialog.close() }, text('keys.close'))));
  document.body.append(dialog);
  dialog.showModal();
}
