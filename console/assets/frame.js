// What every view has: its name among the pages, one sentence about the whole system, and a bar for a lost connection.

import { call } from './api.js';
import { byId, element, firstIfNarrow, replace } from './dom.js';
import { showHelp } from './keys.js';
import { faultWords } from './lab-faults.js';
import { watchConnection, watchMap } from './live.js';
import { stateOf } from './pieces.js';
import { announceSession } from './session.js';
import { summary } from './summary.js';
import { clock, otherLanguages, text } from './texts.js';

const PAGES = [['map', '/'], ['orders', '/orders'], ['traces', '/traces'], ['logs', '/logs'], ['messages', '/messages'], ['numbers', '/numbers']];

const linkTo = ([name, href]) => element('a', { href, 'data-page': name }, text(`page.${name}`));
let shown = '';

export function showFrame(session) {
  byId('bar').hidden = false;
  byId('pages').setAttribute('aria-label', text('frame.pages'));
  byId('pages').replaceChildren(...PAGES.map(linkTo));
  byId('who').replaceChildren(
    element('span', { class: 'person' }, session.email),
    ...otherLanguages().map(({ tag, name, href }) => element('a', { href, lang: tag, hreflang: tag, click: here }, name)),
    element('button', { type: 'button', class: 'plain', id: 'help', 'aria-label': text('keys.title'), click: showHelp }, '?'),
    element('button', { type: 'button', class: 'plain', id: 'logout', click: leave }, text('frame.logout')));
  firstIfNarrow(641, byId('who'), byId('pages'));
  watchConnection(connection);
  watchMap(showSentence);
  watchMap(showFaults);
}

// The address may have changed since the link was made.
function here(event) {
  const { hreflang } = event.currentTarget;
  event.currentTarget.href = otherLanguages().find(({ tag }) => tag === hreflang).href;
}

async function leave() {
  await call('DELETE', '/api/session').catch(() => {});
  announceSession();
  location.assign('/login');
}

export function markPage(name) {
  shown = name;
  document.title = name ? `${text(`page.${name}`)} · ${text('frame.name')}` : text('frame.name');
  for (const link of byId('pages').children) {
    if (link.dataset.page === name) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

function showSentence(map) {
  const { state, words, href } = summary(map);
  const figures = text('sentence.figures', { rate: map.totals.rate.toFixed(map.totals.rate < 10 ? 1 : 0), errors: map.totals.errors ? map.totals.errors.toFixed(1) : '0' });
  replace(byId('sentence'), element('a', { id: 'sentence-link', href }, stateOf(state, words)), element('span', { class: 'quiet figures' }, ` · ${figures}`));
}

// With the lab, a page more; and a banner while a fault runs.
function showFaults({ faults }) {
  if (faults === null) return;
  if (!byId('pages').querySelector('[data-page=lab]')) {
    byId('pages').append(linkTo(['lab', '/lab']));
    markPage(shown);
  }
  const banner = byId('faults');
  banner.hidden = faults.length === 0;
  const words = faults.map(faultWords).join(' · ');
  if (banner.dataset.words === words) return;
  banner.dataset.words = words;
  replace(banner, element('a', { href: '/lab' }, text('lab.banner')), ' ', words);
}

let lostAt = null;

// What is shown is old while the connection is gone: says so, and since when.
function connection(state) {
  const notice = byId('notice');
  if (state === 'lost') lostAt ??= new Date().toISOString();
  else lostAt = null;
  notice.hidden = lostAt === null;
  document.body.classList.toggle('stale', lostAt !== null);
  const words = lostAt === null ? '' : text('frame.offline', { time: clock(lostAt).slice(0, 8) });
  if (notice.textContent !== words) notice.textContent = words;
}
