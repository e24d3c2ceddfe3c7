// The keyboard: / searches, j and k go through products or orders, Enter opens, Esc closes, ? explains.

import { element } from './dom.js';
import { text } from './texts.js';

const KEYS = ['/', 'j', 'k', 'Enter', 'Esc', '?'];
const ROWS = '.card button:enabled, tbody a';
const isField = (one) => /^(INPUT|TEXTAREA|SELECT)$/.test(one.tagName);

export function startKeys() {
  document.addEventListener('keydown', (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || isField(target) || document.querySelector('dialog[open]')) return;
    const act = { '/': () => document.querySelector('input[type=search]')?.focus(), j: () => step(1), k: () => step(-1), '?': showHelp }[key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function step(by) {
  const rows = [...document.querySelectorAll(ROWS)];
  const at = rows.indexOf(document.activeElement);
  const next = rows[at === -1 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by))];
  next?.focus();
  next?.scrollIntoView({ block: 'nearest' });
}

function showHelp() {
  const dialog = element('dialog', { 'aria-labelledby': 'keys-title', close: () => dialog.remove() },
    element('h2', { id: 'keys-title' }, text('keys.title')),
    element('dl', { class: 'keys' }, KEYS.flatMap((key) => [element('dt', {}, element('kbd', {}, key)), element('dd', {}, text(`keys.${key}`))])),
    element('p', { class: 'row' }, element('button', { type: 'button', click: () => dialog.close() }, text('keys.close'))));
  document.body.append(dialog);
  dialog.showModal();
}
