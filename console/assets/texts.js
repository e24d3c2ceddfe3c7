// The sentences of the reader's language, and how it writes numbers, money and times.

const LANGUAGES = { en: 'English', 'zh-Hans': '简体中文' };

export const language = chosen();
document.documentElement.lang = language;
const sentences = await (await fetch(`/assets/${language}.json`)).json();

// Of the address (then it is kept), else of the cookie, else of the browser.
function chosen() {
  const asked = new URLSearchParams(location.search).get('lang');
  if (Object.hasOwn(LANGUAGES, asked ?? '')) document.cookie = `lang=${asked}; Path=/; Max-Age=31536000; SameSite=Strict`;
  const kept = /(?:^|; )lang=([\w-]+)/.exec(document.cookie)?.[1];
  if (Object.hasOwn(LANGUAGES, kept ?? '')) return kept;
  return /^zh\b/.test(navigator.languages[0] ?? '') ? 'zh-Hans' : 'en';
}

// The other languages: name, tag and the address of this page in each.
export function otherLanguages() {
  return Object.entries(LANGUAGES).filter(([tag]) => tag !== language).map(([tag, name]) => {
    const address = new URL(location.href);
    address.searchParams.set('lang', tag);
    return { tag, name, href: address.pathname + address.search };
  });
}

// The sentence of `key`, with `values` in the places of `{name}`.
export function text(key, values = {}) {
  return (sentences[key] ?? key).replace(/\{(\w+)\}/g, (place, name) => String(values[name] ?? place));
}

export const hasText = (key) => Object.hasOwn(sentences, key);

// The sentence of `prefix.name`, or the name as it is: services may know words that the pages do not.
export const word = (prefix, name) => (hasText(`${prefix}.${name}`) ? text(`${prefix}.${name}`) : String(name).replaceAll('_', ' '));

export const count = (number, digits = 0) => new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(number);

export const percent = (share) => new Intl.NumberFormat(language, { style: 'percent', maximumFractionDigits: 1 }).format(share);

// Milliseconds as people write them: 0.4 ms, 12 ms, 3.2 s, 2 min.
export function duration(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms < 10) return `${count(ms, ms < 1 ? 2 : 1)} ms`;
  if (ms < 1000) return `${count(ms)} ms`;
  if (ms < 120000) return `${count(ms / 1000, 1)} s`;
  return ms < 7200000 ? `${count(ms / 60000)} min` : `${count(ms / 3600000)} h`;
}

// Two of them, with one unit if they share it: 1.3/8.4 ms.
export function durations(one, other) {
  const [first, second] = [duration(one), duration(other)];
  const unit = second.slice(second.indexOf(' '));
  return first.endsWith(unit) && first.indexOf(' ') > 0 ? `${first.slice(0, -unit.length)}/${second}` : `${first} / ${second}`;
}

export const rate = (perSecond) => `${count(perSecond, perSecond < 1 ? 2 : perSecond < 10 ? 1 : 0)}/s`;

export function money({ amount, currency }) {
  return new Intl.NumberFormat(language, { style: 'currency', currency, currencyDisplay: 'narrowSymbol' }).format(amount / 100);
}

export const moment = (iso) => new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'medium' }).format(new Date(iso));

export const clock = (iso) => new Intl.DateTimeFormat(language, { hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3, hourCycle: 'h23' }).format(new Date(iso));

// A problem as a sentence that says what to do.
export function explain(problem) {
  if (hasText(`error.${problem.code}`)) return text(`error.${problem.code}`);
  return problem.detail || text('error.internal');
}
