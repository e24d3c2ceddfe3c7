// The view of the log-in. It leads back to the address that was asked for.

import { byId, element } from './dom.js';
import { logInForm } from './login-form.js';
import { otherLanguages, text } from './texts.js';

export function showLogIn() {
  document.title = `${text('login.title')} · ${text('frame.name')}`;
  const form = logInForm({ done: () => location.replace(next()) });
  byId('main').classList.add('narrow');
  byId('main').replaceChildren(
    element('h1', {}, text('login.title')),
    element('p', { class: 'quiet' }, text('login.why')),
    form,
    element('p', {}, otherLanguages().map(({ tag, name, href }) => element('a', { href, lang: tag, hreflang: tag }, name))));
  form.querySelector('input').focus();
}

// Only an address of this origin: anything else would lead to another site.
function next() {
  const asked = URL.parse(new URLSearchParams(location.search).get('next') ?? '/', location.origin);
  return asked?.origin === location.origin ? asked.href : '/';
}
