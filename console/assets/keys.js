// The keyboard: / searches, j and k go through the rows, Enter opens, Esc closes, ? explains.

import { element } from './dom.js';
import { text } from './texts.js';

const KEYS = ['/', 'j', 'k', 'Enter', 'Esc', '?'];
const isField = (one) => /^(INPUT|TEXTAREA|SELECT)$/.test(one.tagName);

export function startKeys() {
  document.addEventListener('keydown', (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector('dialog[open]')) return;
    if (key === 'Escape') return close(target);
    if (isField(target)) return;
    const act = { '/': search, j: () => step(1), k: () => step(-1), '?': showHelp }[key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function search() {
  document.querySelector('[data-search]')?.focus();
}

// The next or previous row; a row is the link that opens it.
function step(by) {
  const rows = [...document.querySelectorAll('[data-row]')].filter((row) => row.checkVisibility());
  const at = rows.indexOf(document.activeElement.closest('[data-row]') ?? document.activeElement.closest('tr')?.querySelector('[data-row]'));
  const next = rows[at === -1 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by))];
  next?.focus();
  next?.scrollIntoView({ block: 'nearest' });
}

// A field first gives the focus back; then what is open is closed.
function close(target) {
  if (isField(target)) return target.blur();
  document.querySelector('[data-close]')?.click();
}

export function showHelp() {
  const dialog = element('dialog', { 'aria-labelledby': 'keys-title', close: () => dialog.remove() },
    element('h2', { id: 'keys-title' }, text('keys.title')),
    element('dl', { class: 'facts' }, KEYS.map((key) => [element('dt', {}, element('kbd', {}, key)), element('dd', {}, text(`keys.${key}`))])),
    element('p', { class: 'row' }, element('button', { type: 'button', click: () => dialog.close() }, text('keys.close'))));
  document.body.append(dialog);
  dialog.showModal();
}
