// Log lines of all programs, newest first.

import { call, query } from './api.js';
import { element } from './dom.js';
import { searchList } from './search-list.js';
import { logFacts } from './trace-rows.js';
import { clock, moment, text } from './texts.js';

const HEADS = ['when', 'level', 'program', 'message', 'trace'];

export const { show, update } = searchList({
  texts: {
    title: text('page.logs'),
    search: text('logs.search'),
    none: text('logs.none'),
    noneSuch: text('logs.none_such'),
  },
  examples: ['level:error', 'level:warn service:order-service', 'service:gateway', 'retry'],
  heads: HEADS.map((name) => [text(`logs.${name}`)]),
  row,
  items: async (words, before) => {
    const page = await call('GET', `/api/logs${query({ q: words, before, limit: 100 })}`);
    return { items: page.logs, next: page.next, tookMs: page.took_ms };
  },
});

function row(log) {
  const below = element('div', { class: 'details', hidden: true });
  const toggle = () => {
    below.hidden = !below.hidden;
    button.setAttribute('aria-expanded', String(!below.hidden));
    if (below.children.length === 0) below.append(logFacts(log));
  };
  const button = element('button', { type: 'button', class: 'plain message', 'data-row': true, 'aria-expanded': 'false', click: toggle }, log.message);
  return element('tr', {},
    element('td', {}, element('time', { datetime: log.at, title: moment(log.at) }, clock(log.at))),
    element('td', {}, element('span', { class: `level is-${log.level}` }, log.level)),
    element('td', { class: 'steady' }, log.instance ?? log.service),
    element('td', { class: 'what' }, button, below),
    element('td', {}, log.trace_id && element('a', { href: `/traces/${encodeURIComponent(log.trace_id)}`, title: log.trace_id, class: 'mono' }, log.trace_id.slice(0, 8))));
}
