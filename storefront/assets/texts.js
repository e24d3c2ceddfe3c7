// The sentences of the page's language, and how it writes money and times.

import { call } from './api.js';

export const language = document.documentElement.lang;
const sentences = (await call('GET', `/shop/assets/${language}.json`)).body;

// The sentence of `key`, with `values` in the places of `{name}`.
export function text(key, values = {}) {
  return (sentences[key] ?? key).replace(/\{(\w+)\}/g, (place, name) => String(values[name] ?? place));
}

export const hasText = (key) => Object.hasOwn(sentences, key);

export function money({ amount, currency }) {
  return new Intl.NumberFormat(language, { style: 'currency', currency, currencyDisplay: 'narrowSymbol' }).format(amount / 100);
}

export const count = (number) => new Intl.NumberFormat(language).format(number);

export function moment(iso) {
  return new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' }).format(new Date(iso));
}

export function clock(iso) {
  return new Intl.DateTimeFormat(language, { hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3, hourCycle: 'h23' }).format(new Date(iso));
}

// A problem as a sentence that says what to do.
export function explain(problem) {
  const key = `error.${problem.code ?? 'internal'}`;
  if (hasText(key)) return text(key);
  return problem.detail ? problem.detail : text('error.internal');
}
