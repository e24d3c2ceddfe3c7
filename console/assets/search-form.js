// A field whose words are in the address, with examples that can be clicked.

import { element } from './dom.js';
import { go, withQuery } from './router.js';
import { text } from './texts.js';

export function searchForm({ label, value, examples = [], extra = null }) {
  const field = element('input', { type: 'search', id: 'q', name: 'q', value, 'data-search': true, autocomplete: 'off', spellcheck: 'false' });
  const submit = (event) => {
    event.preventDefault();
    go(withQuery({ q: field.value.trim() }));
  };
  return element('div', {},
    element('form', { class: 'search', role: 'search', submit },
      element('label', { for: 'q' }, label), field, element('button', {}, text('search.go')), extra),
    examples.length > 0 && element('details', { class: 'examples' }, element('summary', {}, text('search.how')),
      element('p', { class: 'quiet' }, text('search.explained')),
      element('ul', { class: 'plain' }, examples.map((example) => element('li', {}, element('a', { href: `${location.pathname}?q=${encodeURIComponent(example)}` }, element('code', {}, example)))))));
}
