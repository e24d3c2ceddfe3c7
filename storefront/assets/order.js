// One order: a line of five steps that fill as the order's events arrive.

import { accountForm } from './account.js';
import { newId } from './api.js';
import { byId, element, unseen, withLoadingText } from './dom.js';
import { follow } from './events.js';
import { begin, connection, failure, warn } from './frame.js';
import { ago, idOf } from './pieces.js';
import { authorized, watchPerson } from './session.js';
import { clock, money, moment, text } from './texts.js';

const STEPS = ['placed', 'approved', 'paid', 'shipped', 'delivered'];
const SHAPES = { done: '✓', now: '◐', todo: '○', failed: '✕', skipped: '–' };
const FINAL = ['delivered', 'rejected', 'cancelled', 'refunded'];
const CANCELLABLE = ['awaiting_payment', 'confirmed'];
// While the payment runs, its steps are in the timeline before an event tells of them.
const LOOK_AGAIN = 2000;

const place = byId('order');
const path = `/api/orders/${encodeURIComponent(place.dataset.order)}`;
const state = element('p', { id: 'state', class: 'state', role: 'status' });
const steps = element('ol', { class: 'steps', 'aria-label': text('order.progress') });
const live = element('p', { id: 'live', class: 'quiet' });
const details = element('div', {});
const actions = element('div', {});
let watching = null;
let order = null;
let timeline = [];

await begin();
watchPerson((person) => {
  watching?.abort();
  if (person === null) place.replaceChildren(accountForm());
  else start();
});
// A hidden tab needs no events.
document.addEventListener('visibilitychange', () => {
  if (document.hidden) watching?.abort();
  else if (order !== null && !FINAL.includes(order.status)) listen();
});

async function start() {
  place.replaceChildren();
  try {
    order = (await withLoadingText(place, text('order.loading'), authorized('GET', path))).body;
  } catch (problem) {
    return place.replaceChildren(failure(problem, problem.status === 404 ? null : start));
  }
  place.replaceChildren(state, steps, live, actions, details);
  showDetails();
  await look();
  if (!FINAL.includes(order.status)) listen();
}

// Follows the order's events, each of which brings the order as it was after the change.
async function listen() {
  watching?.abort();
  const mine = new AbortController();
  watching = mine;
  const timer = setInterval(() => { if (order.status === 'awaiting_payment') look(); }, LOOK_AGAIN);
  try {
    await follow(`${path}/events`, { signal: mine.signal, onState: told, onEvent: take });
  } catch (problem) {
    warn(null);
    actions.replaceChildren(failure(problem, listen));
  } finally {
    clearInterval(timer);
    if (watching === mine) live.textContent = '';
  }
}

function told(state, replica) {
  connection(state);
  live.textContent = state === 'open' ? text('order.live', { replica }) : '';
}

// Whether the order can change no more.
function take({ data }) {
  const told = JSON.parse(data);
  // After a reconnection, older events may come again.
  if (told.version >= order.version) order = told;
  show();
  look();
  return FINAL.includes(told.status);
}

// Reads the timeline: when each step was done, and by which replica.
async function look() {
  try {
    timeline = (await authorized('GET', `${path}/timeline`)).body.events;
  } catch {
    // The steps have no times then; the next event tries again.
  }
  show();
}

function show() {
  state.textContent = sentence();
  state.dataset.status = order.status;
  steps.replaceChildren(...STEPS.map(step));
  const can = CANCELLABLE.includes(order.status);
  if (!can) actions.replaceChildren();
  else if (!actions.firstChild) actions.replaceChildren(element('button', { id: 'cancel', type: 'button', click: askToCancel }, text('cancel.button')));
}

function sentence() {
  const key = order.status === 'rejected' && order.reason ? `reason.${order.reason}` : `told.${order.status}`;
  return text(key, { total: money(order.total) });
}

// The change that did a step, or undefined.
function changeOf(name) {
  const became = (status) => timeline.find(({ from, to }) => to === status && from !== status);
  switch (name) {
    case 'placed': return timeline[0];
    case 'approved': return timeline.find(({ cause }) => cause === 'payment.authorized');
    case 'paid': return became('confirmed');
    default: return became(name);
  }
}

function isDone(name) {
  const reached = { confirmed: 3, shipped: 4, delivered: 5 }[order.status] ?? 1;
  return STEPS.indexOf(name) < reached || changeOf(name) !== undefined;
}

function stateOf(name) {
  if (isDone(name)) return 'done';
  const first = STEPS.find((one) => !isDone(one)) === name;
  if (['awaiting_payment', 'confirmed', 'shipped', 'needs_attention'].includes(order.status)) return first ? 'now' : 'todo';
  return first && order.status === 'rejected' ? 'failed' : 'skipped';
}

function step(name) {
  const now = stateOf(name);
  const change = now === 'done' ? changeOf(name) : undefined;
  return element('li', { class: now, 'data-step': name, 'aria-current': now === 'now' ? 'step' : null },
    element('span', { class: 'shape', 'aria-hidden': 'true' }, SHAPES[now]),
    element('span', { class: 'words' },
      element('b', {}, text(`step.${name}`)), unseen(` (${text(`step.${now}`)})`),
      element('span', { class: 'quiet' }, text(['done', 'now'].includes(now) ? `step.${name}.${now}` : `step.is.${now}`)),
      change && element('small', { class: 'quiet' }, element('time', { datetime: change.at, title: moment(change.at) }, clock(change.at)), ` · ${change.instance}`)));
}

function showDetails() {
  const rows = order.lines.map((line) => element('tr', {},
    element('td', { class: 'what' }, line.name),
    element('td', { class: 'much' }, `${line.quantity} × ${money(line.unit_price)}`),
    element('td', { class: 'much' }, money(line.total))));
  details.replaceChildren(
    element('h2', {}, text('order.what')),
    element('div', { class: 'scrolls', tabindex: 0, role: 'region', 'aria-label': text('order.what') }, element('table', {}, element('tbody', {}, rows),
      element('tfoot', {}, element('tr', {}, element('th', { scope: 'row', colspan: 2 }, text('order.total')), element('td', { class: 'much' }, money(order.total)))))),
    element('p', { class: 'quiet' }, text('order.number'), ' ', idOf(order.id), ' · ', ago(order.created_at)));
}

// What cannot be undone asks once, in words that say what will happen.
function askToCancel() {
  const paid = order.status === 'confirmed';
  const close = () => dialog.close();
  const dialog = element('dialog', { 'aria-labelledby': 'cancel-title', close: () => dialog.remove() },
    element('h2', { id: 'cancel-title' }, text('cancel.title')),
    element('p', {}, text(paid ? 'cancel.paid' : 'cancel.unpaid', { total: money(order.total) })),
    element('p', { class: 'row' },
      element('button', { type: 'button', id: 'cancel-no', click: close }, text('cancel.no')),
      element('button', { type: 'button', id: 'cancel-yes', class: 'danger', click: () => { close(); cancel(newId()); } }, text('cancel.yes'))));
  document.body.append(dialog);
  dialog.showModal();
}

async function cancel(key) {
  actions.replaceChildren(element('p', { class: 'quiet' }, text('cancel.busy')));
  try {
    const told = (await authorized('POST', `${path}/cancel`, { key })).body;
    if (told.version >= order.version) order = told;
  } catch (problem) {
    return actions.replaceChildren(failure(problem, () => cancel(key)));
  }
  actions.replaceChildren();
  show();
  if (watching === null || watching.signal.aborted) listen();
}
