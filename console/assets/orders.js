// Orders as customers never see them: those that need a person first.

import { call, query } from './api.js';
import { element, replace, table } from './dom.js';
import { listView } from './list.js';
import { ago, idOf, stateOf } from './pieces.js';
import { go, withQuery } from './router.js';
import { money, text, word } from './texts.js';

const STATUSES = ['awaiting_payment', 'confirmed', 'shipped', 'delivered', 'rejected', 'cancelling', 'cancelled', 'refunding', 'refunded', 'needs_attention'];
// In seconds.
const AGES = { minute: 60, hour: 3600, day: 86400 };
const HEADS = ['order', 'when', 'customer', 'what', 'total', 'status'];

let parts = null;

export function show(place, { search, signal }) {
  parts = { form: element('div', {}), attention: element('div', { id: 'attention' }), list: element('div', {}), signal };
  place.append(element('h1', {}, text('page.orders')), parts.form, parts.attention, parts.list);
  update(search);
}

let stop = new AbortController();

export function update(search) {
  stop.abort();
  stop = new AbortController();
  const [status, wanted, customer] = ['status', 'age', 'customer'].map((name) => search.get(name) ?? '');
  const age = Object.hasOwn(AGES, wanted) ? wanted : '';
  replace(parts.form, filters(status, age, customer));
  listView(parts.list, {
    label: text('page.orders'),
    heads: heads(),
    signal: AbortSignal.any([stop.signal, parts.signal]),
    row,
    empty: () => (status || age || customer ? text('orders.none_such') : text('orders.none')),
    load: async (cursor) => {
      const page = await call('GET', `/api/orders${query({ status, older_than: AGES[age], customer_id: customer, cursor, limit: 25 })}`);
      if (!cursor) showAttention(page.attention ?? []);
      return { items: page.orders.map((entry) => ({ id: entry.order.id, ...entry })), next: page.next_cursor };
    },
  });
}

const heads = () => HEADS.map((name) => [text(`orders.${name}`), name === 'total' ? 'much' : '']);

function filters(status, age, customer) {
  const choice = element('select', { id: 'status', change: () => go(withQuery({ status: choice.value })) },
    element('option', { value: '' }, text('orders.all')),
    STATUSES.map((one) => element('option', { value: one, selected: one === status }, text(`status.${one}`))));
  const older = element('select', { id: 'age', change: () => go(withQuery({ age: older.value })) },
    element('option', { value: '' }, text('orders.all')),
    Object.keys(AGES).map((one) => element('option', { value: one, selected: one === age }, text(`orders.age.${one}`))));
  const field = element('input', { type: 'search', id: 'q', 'data-search': true, value: customer, autocomplete: 'off', placeholder: '0190…' });
  const trouble = element('p', { class: 'wrong', role: 'status' });
  return element('div', {},
    element('form', { class: 'search', role: 'search', submit: find },
      element('label', { for: 'status' }, text('orders.status')), choice,
      element('label', { for: 'age' }, text('orders.age')), older,
      element('label', { for: 'q' }, text('orders.id')), field,
      element('button', {}, text('search.go'))), trouble);

  // An order's id opens the order, a customer's narrows the list.
  async function find(event) {
    event.preventDefault();
    const id = field.value.trim();
    if (!id) return go(withQuery({ customer: '' }));
    if (!/^[\w-]{36}$/.test(id)) {
      trouble.textContent = text('orders.not_an_id');
      return;
    }
    const order = await call('GET', `/api/orders/${id}`).catch(() => null);
    go(order ? `/orders/${id}` : withQuery({ customer: id }));
  }
}

// What nobody else will solve stays on top.
function showAttention(entries) {
  const as = JSON.stringify(entries);
  if (parts.attention.dataset.as === as) return;
  parts.attention.dataset.as = as;
  parts.attention.replaceChildren(...(entries.length === 0 ? [] : [
    element('h2', {}, stateOf('failing', text('orders.attention', { count: entries.length }))),
    table(text('orders.stuck'), heads(), element('tbody', {}, entries.map((entry) => row({ id: entry.order.id, ...entry })))),
    element('h2', {}, text('orders.every'))]));
}

function row({ order, saga }) {
  const what = order.lines.map((line) => `${line.quantity} × ${line.name}`).join(', ');
  const stuck = saga?.state === 'stuck';
  return element('tr', { 'data-order': order.id },
    element('td', {}, element('a', { href: `/orders/${encodeURIComponent(order.id)}`, 'data-row': true, title: order.id, class: 'mono' }, `…${order.id.slice(-6)}`)),
    element('td', {}, ago(order.created_at)),
    element('td', {}, idOf(order.customer_id)),
    element('td', { class: 'what' }, what),
    element('td', { class: 'much' }, money(order.total)),
    element('td', {}, statusOf(order), saga && element('div', { class: 'quiet' }, text(stuck ? 'orders.stuck_at' : 'orders.running', { step: text(`step.${saga.step}`), attempts: saga.attempts }))));
}

const STATES = { confirmed: 'healthy', shipped: 'healthy', delivered: 'healthy', needs_attention: 'failing', awaiting_payment: 'degraded', cancelling: 'degraded', refunding: 'degraded' };

export function statusOf(order) {
  const reason = order.reason ? ` (${word('reason', order.reason)})` : '';
  return stateOf(STATES[order.status] ?? 'away', word('status', order.status) + reason);
}
