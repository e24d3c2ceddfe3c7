// The form that makes a session: at /login, and wherever the program wants a recent log-in.

import { Problem, call } from './api.js';
import { element } from './dom.js';
import { failure } from './pieces.js';
import { announceSession } from './session.js';
import { text } from './texts.js';

// `email` fills the first field; `done` is called with the session.
export function logInForm({ email = '', done }) {
  const trouble = element('div', {});
  const button = element('button', { id: 'login-go' }, text('login.go'));
  const name = field('email', { type: 'email', autocomplete: 'username', value: email });
  const secret = field('password', { type: 'password', autocomplete: 'current-password' });
  return element('form', { id: 'login', class: 'stack', novalidate: true, submit: send }, name.place, secret.place, trouble, button);

  async function send(event) {
    event.preventDefault();
    const empty = [name, secret].filter(({ input, complain }) => complain(input.value === ''));
    if (empty.length) return empty[0].input.focus();
    if (button.getAttribute('aria-busy') === 'true') return;
    busy(true);
    trouble.replaceChildren();
    try {
      const session = await call('POST', '/api/session', { body: { email: name.input.value, password: secret.input.value } });
      announceSession();
      done(session);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      // Here the code says more than elsewhere: the person is known, but is no admin.
      if (problem.code === 'forbidden') problem.code = 'not_an_admin';
      trouble.replaceChildren(failure(problem));
      secret.input.select();
    } finally {
      busy(false);
    }
  }

  function busy(is) {
    button.setAttribute('aria-busy', String(is));
    button.textContent = text(is ? 'login.busy' : 'login.go');
  }
}

function field(name, kind) {
  const id = `login-${name}`;
  const wrong = element('p', { id: `${id}-wrong`, class: 'wrong' });
  const input = element('input', { ...kind, id, name, required: true, 'aria-describedby': `${id}-wrong` });
  const place = element('div', { class: 'field' }, element('label', { for: id }, text(`login.${name}`)), input, wrong);
  const complain = (isWrong) => {
    wrong.textContent = isWrong ? text(`login.wrong.${name}`) : '';
    input.setAttribute('aria-invalid', String(isWrong));
    return isWrong;
  };
  return { place, input, complain };
}
