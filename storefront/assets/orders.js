// The orders of the person who is logged in, newest first.

import { accountForm } from './account.js';
import { byId, element, withLoadingText } from './dom.js';
import { begin, failure } from './frame.js';
import { ago } from './pieces.js';
import { authorized, currentPerson, watchPerson } from './session.js';
import { money, text } from './texts.js';

const STATUSES = ['awaiting_payment', 'confirmed', 'shipped', 'delivered', 'rejected', 'cancelling', 'cancelled', 'refunding', 'refunded', 'needs_attention'];

const place = byId('orders');

await begin();
watchPerson((person) => {
  if (person === null) place.replaceChildren(accountForm());
  else show();
});

async function show() {
  const status = new URLSearchParams(location.search).get('status') ?? '';
  const rows = element('tbody');
  const under = element('div', {});
  const choice = element('select', { id: 'status', change: choose },
    element('option', { value: '' }, text('orders.all')),
    STATUSES.map((one) => element('option', { value: one, selected: one === status }, text(`status.${one}`))));
  const heads = ['orders.number', 'orders.when', 'orders.what', 'orders.total', 'orders.status'];
  const table = element('div', { class: 'scrolls', tabindex: 0, role: 'region', 'aria-label': text('orders.title') },
    element('table', {},
      element('thead', {}, element('tr', {}, heads.map((key) => element('th', { scope: 'col', class: key === 'orders.total' ? 'much' : '' }, text(key))))),
      rows));
  place.replaceChildren(element('p', {}, element('label', { for: 'status' }, text('orders.filter')), ' ', choice), table, under);
  more(null);

  function choose() {
    history.replaceState(null, '', choice.value ? `?status=${choice.value}` : location.pathname);
    show().then(() => byId('status').focus());
  }

  async function more(cursor) {
    const parts = new URLSearchParams({ limit: '20' });
    if (STATUSES.includes(status)) parts.set('status', status);
    if (cursor) parts.set('cursor', cursor);
    try {
      const { body } = await withLoadingText(under, text('orders.loading'), authorized('GET', `/api/orders?${parts}`));
      rows.append(...body.orders.map(row));
      under.replaceChildren(...below(body.next_cursor));
    } catch (problem) {
      if (currentPerson() !== null) under.replaceChildren(failure(problem, () => more(cursor)));
    }
  }

  function below(next) {
    table.hidden = rows.children.length === 0;
    if (table.hidden) return [element('p', { class: 'quiet' }, text('orders.none'), ' ', element('a', { href: '/' }, text('orders.place_one')))];
    return next ? [element('button', { type: 'button', click: () => more(next) }, text('orders.more'))] : [];
  }
}

function row(order) {
  const what = order.lines.map((line) => `${line.quantity} × ${line.name}`).join(', ');
  return element('tr', {},
    element('td', {}, element('a', { href: `/shop/orders/${encodeURIComponent(order.id)}`, title: order.id }, `…${order.id.slice(-6)}`)),
    element('td', {}, ago(order.created_at)),
    element('td', { class: 'what' }, what),
    element('td', { class: 'much' }, money(order.total)),
    element('td', {}, text(`status.${order.status}`)));
}
