// What changes something asks once, in words that say what will happen.

import { call } from './api.js';
import { element } from './dom.js';
import { logInForm } from './login-form.js';
import { failure, say } from './pieces.js';
import { text } from './texts.js';

// Asks, then sends `method path body`, and shows what went wrong in the same place. `done` is called after success.
export function ask({ title, words, yes, method = 'POST', path, body, danger = false, done = () => {} }) {
  const under = element('div', {});
  const no = element('button', { type: 'button', id: 'ask-no', class: 'second', click: () => dialog.close() }, text('ask.no'));
  const button = element('button', { type: 'button', id: 'ask-yes', class: danger ? 'danger' : '', click: send }, yes);
  const dialog = element('dialog', { 'aria-labelledby': 'ask-title', close: () => dialog.remove() },
    element('h2', { id: 'ask-title' }, title), element('p', {}, words), under, element('p', { class: 'row' }, no, button));
  document.body.append(dialog);
  dialog.showModal();
  no.focus();

  async function send() {
    if (button.getAttribute('aria-busy') === 'true') return;
    button.setAttribute('aria-busy', 'true');
    under.replaceChildren();
    try {
      const answer = await call(method, path, { body });
      dialog.close();
      say(text('ask.done'));
      done(answer);
    } catch (problem) {
      if (problem.code === 'recent_login_required') return logInAgain();
      under.replaceChildren(failure(problem));
    } finally {
      button.setAttribute('aria-busy', 'false');
    }
  }

  // Money and lost messages need somebody who has just shown the password.
  async function logInAgain() {
    const { email } = await call('GET', '/api/session');
    const form = logInForm({ email, done: () => { under.replaceChildren(); send(); } });
    under.replaceChildren(element('p', {}, text('ask.again')), form);
    form.querySelector('#login-password').focus();
  }
}

// A button that asks.
export const asking = (label, question, attributes = {}) => element('button', { type: 'button', class: 'second', ...attributes, click: () => ask(question()) }, label);
