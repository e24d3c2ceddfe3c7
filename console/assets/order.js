// One order in three columns: the saga, what happened, the money. One click leads to its trace, and one to its messages.

import { call } from './api.js';
import { asking } from './ask.js';
import { byId, element, replace, withLoadingText } from './dom.js';
import { every } from './live.js';
import { showMessages } from './order-messages.js';
import { moneyColumn } from './order-money.js';
import { sagaColumn, storyColumn } from './order-saga.js';
import { statusOf } from './orders.js';
import { ago, failure, idOf } from './pieces.js';
import { money, text } from './texts.js';

const EVERY = 2000;

let showPart = () => {};

// The address says whether the messages are shown.
export const update = (search) => showPart(search, true);

export async function show(place, { params: [id], search, signal }) {
  const path = `/api/orders/${encodeURIComponent(id)}`;
  const [above, head, actions, body] = ['', 'order-head', 'row', 'three'].map((kind) => element('div', { class: kind }));
  const messages = element('section', { id: 'messages', 'aria-labelledby': 'messages-title' });
  let as = '';
  let shown = null;
  place.append(element('p', {}, element('a', { href: '/orders', 'data-close': true }, text('order.back'))), above, head, actions, body, messages);
  showPart = openMessages;
  openMessages(search);
  every(EVERY, refresh, signal);

  function openMessages(query, isMove = false) {
    shown?.abort();
    shown = query.has('messages') ? new AbortController() : null;
    messages.hidden = !shown;
    if (!shown) {
      messages.replaceChildren();
      if (isMove) byId('to-messages')?.focus();
      return;
    }
    showMessages(messages, id, AbortSignal.any([signal, shown.signal]));
    if (isMove) messages.querySelector('h2').focus();
  }

  async function refresh() {
    try {
      const detail = await (as ? call('GET', path, { signal }) : withLoadingText(above, text('loading'), call('GET', path, { signal })));
      above.replaceChildren(...(detail.missing.length ? [element('p', { class: 'state degraded' }, `◐ ${text('missing', { names: detail.missing.join(', ') })}`)] : []));
      body.classList.remove('old');
      const now = JSON.stringify(detail);
      // What has not changed is not built again: somebody may be marking it.
      if (now !== as) render(detail);
      as = now;
    } catch (problem) {
      if (signal.aborted) return;
      body.classList.add('old');
      above.replaceChildren(failure(problem, refresh));
    }
  }

  function render(detail) {
    const { order, traces } = detail;
    const what = order.lines.map((line) => `${line.quantity} × ${line.name}`).join(', ');
    replace(head,
      element('h1', {}, text('order.title'), ' ', idOf(order.id)),
      element('p', {}, element('span', { id: 'order-status' }, statusOf(order)), ' · ', element('b', {}, money(order.total)), ' · ', element('span', { class: 'what', id: 'order-lines' }, what)),
      element('p', { class: 'quiet' }, text('orders.customer'), ' ', idOf(order.customer_id), ' · ', ago(order.created_at)));
    const trace = traces.find((one) => one.is_kept);
    const link = (id, href, words) => element('a', { class: 'button', id, href }, words);
    replace(actions,
      trace ? link('to-trace', `/traces/${encodeURIComponent(trace.id)}`, text('order.to_trace')) : element('span', { class: 'quiet' }, text('order.no_trace')),
      link('to-traces', `/traces?q=${encodeURIComponent(`order:${order.id}`)}`, text('order.to_traces')),
      link('to-logs', `/logs?q=${encodeURIComponent(`order:${order.id}`)}`, text('order.to_logs')),
      link('to-messages', `${location.pathname}?messages=shown`, text('order.messages')),
      detail.actions.map((name) => button(name, detail)));
    replace(body, sagaColumn(detail), storyColumn(detail), moneyColumn(detail));
  }

  function button(name, { order }) {
    const values = { total: money(order.total), id: order.id.slice(-6) };
    const isPaid = ['confirmed', 'needs_attention'].includes(order.status);
    const words = name === 'resume' ? text('order.resume.ask', values) : text(`order.${name}.ask.${isPaid ? 'paid' : 'unpaid'}`, values);
    const question = () => ({ title: text(`order.${name}`), words, yes: text(`order.${name}`), path: `${path}/${name}`, danger: name !== 'resume', done: refresh });
    return asking(text(`order.${name}`), question, { id: `do-${name}` });
  }
}
