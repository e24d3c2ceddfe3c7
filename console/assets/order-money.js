// The third column of an order: the payment's states, the ledger's entries, and what the card network says.

import { element, table } from './dom.js';
import { ago, facts, idOf, stateOf } from './pieces.js';
import { clock, money, moment, text, word } from './texts.js';

export function moneyColumn({ order, payments, entries, statement, missing }) {
  // Without an answer, nobody knows; that is not the same as none.
  const unknownOr = (part, none) => element('p', { class: 'quiet' }, text(missing.includes(part) ? 'order.unknown' : none));
  return element('section', { class: 'column', 'aria-labelledby': 'money-title' },
    element('h2', { id: 'money-title' }, text('order.money')),
    payments.length === 0 && unknownOr('payments', 'order.no_payment'),
    payments.map(payment),
    element('h3', {}, text('order.ledger')), entries.length ? ledger(entries) : unknownOr(missing.includes('payments') ? 'payments' : 'entries', 'order.no_entries'),
    element('h3', {}, text('order.statement')), statement.length ? charges(statement) : unknownOr('statement', 'order.no_charge'),
    missing.length === 0 && statement.length > 0 && agreement(order, entries, statement));
}

function payment(one) {
  return facts([
    [text('order.payment'), idOf(one.id)],
    [text('orders.status'), element('span', { id: 'payment-status' }, word('payment', one.status), one.decline_code && ` (${word('reason', one.decline_code)})`)],
    [text('order.amount'), money(one.amount)],
    [text('order.refunded'), one.refunded.amount > 0 && money(one.refunded)],
    [text('order.changed'), ago(one.updated_at)],
  ].filter(([, value]) => value !== false));
}

function ledger(entries) {
  const heads = [[text('order.at')], [text('order.account')], [text('order.why')], [text('order.amount'), 'much']];
  return table(text('order.ledger'), heads, element('tbody', {}, entries.map((entry) => element('tr', {},
    element('td', {}, element('time', { datetime: entry.at, title: moment(entry.at) }, clock(entry.at).slice(0, 8))),
    element('td', {}, word('account', entry.account)),
    element('td', {}, word('entry', entry.kind)),
    element('td', { class: 'much' }, money(entry))))));
}

function charges(statement) {
  return element('ul', { class: 'plain', id: 'statement' }, statement.map((charge) => {
    const sum = (amount) => money({ amount, currency: charge.currency });
    const parts = [
      text('charge.authorized', { sum: sum(charge.authorized) }),
      charge.captured > 0 && text('charge.captured', { sum: sum(charge.captured), times: charge.times_captured }),
      charge.refunded > 0 && text('charge.refunded', { sum: sum(charge.refunded) }),
      charge.voided && text('charge.voided'),
    ].filter(Boolean);
    return element('li', {}, parts.join(', '), charge.times_captured > 1 && [' ', stateOf('failing', text('charge.twice'))]);
  }));
}

// The ledger and the card network must say the same.
function agreement(order, entries, statement) {
  const ours = entries.filter((entry) => entry.account === 'card_network').reduce((sum, entry) => sum + entry.amount, 0);
  const theirs = statement.reduce((sum, charge) => sum + charge.captured - charge.refunded, 0);
  const values = { ours: money({ amount: ours, currency: order.total.currency }), theirs: money({ amount: theirs, currency: order.total.currency }) };
  return element('p', { id: 'agreement' }, ours === theirs ? stateOf('healthy', text('order.agree', values)) : stateOf('degraded', text('order.differ', values)));
}
