// The form to register or to log in, wherever a page needs to know who somebody is.

import { Problem, call, newId } from './api.js';
import { byId, element } from './dom.js';
import { failure } from './frame.js';
import { logIn } from './session.js';
import { hasText, text } from './texts.js';

const FIELDS = {
  name: { type: 'text', autocomplete: 'name', maxlength: 100 },
  email: { type: 'email', autocomplete: 'email', maxlength: 254 },
  password: { type: 'password', minlength: 10, maxlength: 128 },
};

export function accountForm() {
  // Until there is an answer, the same click has the same key.
  let click = null;
  const fields = Object.fromEntries(Object.entries(FIELDS).map(([name, kind]) => [name, field(name, kind)]));
  const isNew = () => modes.new.checked;
  const modes = { new: mode('new'), known: mode('known') };
  const button = element('button', { id: 'account-go' }, '');
  // Only in a stack with the lab: for people who look around.
  const example = 'lab' in document.body.dataset
    && element('button', { id: 'account-example', type: 'button', click: fillIn }, text('account.example'));
  const trouble = element('div', {});
  const form = element('form', { id: 'account', class: 'account', novalidate: true, submit: send },
    element('h3', {}, text('account.title')),
    element('p', { class: 'quiet' }, text('account.why')),
    element('fieldset', { class: 'modes' }, element('legend', { class: 'unseen' }, text('account.title')),
      element('label', {}, modes.new, ' ', text('account.new')),
      element('label', {}, modes.known, ' ', text('account.known'))),
    fields.name.place, fields.email.place, fields.password.place, trouble, button, example);
  change();
  return form;

  function mode(value) {
    return element('input', { type: 'radio', name: 'mode', value, id: `account-${value}`, checked: value === 'new', change });
  }

  function change() {
    fields.name.place.hidden = !isNew();
    fields.password.input.autocomplete = isNew() ? 'new-password' : 'current-password';
    fields.password.hint.hidden = !isNew();
    button.textContent = text(isNew() ? 'account.register' : 'account.login');
    trouble.replaceChildren();
    Object.values(fields).forEach((one) => one.complain(''));
  }

  async function send(event) {
    event.preventDefault();
    if (button.getAttribute('aria-busy') === 'true' || !isComplete()) return;
    busy(true);
    trouble.replaceChildren();
    try {
      const [name, email, password] = [fields.name, fields.email, fields.password].map((one) => one.input.value);
      if (isNew()) await register({ email, name, password });
      await logIn(email, password);
      // The form, which had the focus, is gone; the page may have moved it.
      if (document.activeElement === document.body) byId('main').focus();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      explainFields(problem);
    } finally {
      busy(false);
    }
  }

  function fillIn() {
    if (button.getAttribute('aria-busy') === 'true') return;
    const values = { name: text('account.example.name'), email: `${newId()}@example.com`, password: newId() };
    Object.entries(values).forEach(([name, value]) => { fields[name].input.value = value; });
    modes.new.checked = true;
    change();
    form.requestSubmit();
  }

  async function register(person) {
    const body = JSON.stringify(person);
    if (click?.body !== body) click = { key: newId(), body };
    await call('POST', '/api/users', click);
    click = null;
    // If the login fails, only that is tried again.
    modes.known.checked = true;
    change();
  }

  // Checks what the API would refuse, where it is wrong; the first fault gets the focus.
  function isComplete() {
    const used = isNew() ? ['name', 'email', 'password'] : ['email', 'password'];
    const wrong = used.filter((name) => {
      const { input, complain } = fields[name];
      const good = input.value.trim() !== '' && (name !== 'password' || !isNew() || input.value.length >= 10) && (name !== 'email' || input.checkValidity());
      complain(good ? '' : text(`account.wrong.${name}`));
      return !good;
    });
    if (wrong.length) fields[wrong[0]].input.focus();
    return wrong.length === 0;
  }

  function explainFields(problem) {
    const known = problem.errors.filter((error) => error.field in fields);
    known.forEach((error) => fields[error.field].complain(text(`account.wrong.${error.field}`)));
    if (problem.code === 'email_taken') fields.email.complain(text('error.email_taken'));
    if (known.length) fields[known[0].field].input.focus();
    trouble.replaceChildren(failure(problem));
  }

  function busy(is) {
    button.setAttribute('aria-busy', String(is));
    button.textContent = text(is ? 'account.busy' : isNew() ? 'account.register' : 'account.login');
  }
}

function field(name, kind) {
  const id = `account-${name}`;
  const wrong = element('p', { id: `${id}-wrong`, class: 'wrong' });
  const hint = element('p', { id: `${id}-hint`, class: 'quiet', hidden: true }, hasText(`account.hint.${name}`) ? text(`account.hint.${name}`) : '');
  const input = element('input', { ...kind, id, name, required: true, 'aria-describedby': `${id}-wrong ${id}-hint` });
  const place = element('div', { class: 'field' }, element('label', { for: id }, text(`account.${name}`)), hint, input, wrong);
  const complain = (sentence) => {
    wrong.textContent = sentence;
    input.setAttribute('aria-invalid', String(sentence !== ''));
  };
  return { place, input, hint, complain };
}
