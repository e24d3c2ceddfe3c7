// The page of the shop: shelves on the left, the cart with the till on the right.

import { accountForm } from './account.js';
import { CARDS } from './cards.js';
import { clear, lines, setQuantity, total, watchCart } from './cart.js';
import { reload, startCatalogue } from './catalogue.js';
import { pay, unanswered } from './checkout.js';
import { byId, element } from './dom.js';
import { begin, failure } from './frame.js';
import { currentPerson, watchPerson } from './session.js';
import { money, text } from './texts.js';

const list = element('ul', { class: 'lines' });
const sum = element('p', { class: 'sum' });
const button = element('button', { id: 'pay', class: 'main' });
const trouble = element('div', { id: 'till-trouble' });
const cards = element('fieldset', { class: 'tills' },
  element('legend', {}, text('pay.card')),
  element('p', { class: 'quiet' }, text('pay.explained')),
  CARDS.map((token) => element('label', { class: 'till' },
    element('input', { type: 'radio', name: 'card', value: token, checked: token === CARDS[0] }),
    element('span', {}, element('b', {}, text(`card.${token}.name`)), ' ', element('code', {}, token), element('br'), element('span', { class: 'quiet' }, text(`card.${token}.does`))))));
const till = element('form', { id: 'till', submit: order }, cards, trouble, button);
const place = element('div', {});
let form = null;
let busy = false;

byId('cart-body').replaceChildren(list, sum, place);
watchCart(showLines);
startCatalogue();
await begin();
watchPerson(showTill);

function showLines(all) {
  const focused = document.activeElement?.id;
  list.replaceChildren(...all.map(line));
  sum.textContent = all.length ? text('cart.total', { total: money(total()) }) : text('cart.empty');
  byId('to-cart').hidden = all.length === 0;
  byId('to-cart').textContent = text('cart.open', { total: money(total()) });
  if (focused) byId(focused)?.focus();
  showButton();
}

function line({ id, name, quantity, price }) {
  const set = ({ target }) => {
    if (target.value === '') target.value = quantity;
    else setQuantity(id, Number(target.value));
  };
  const drop = () => {
    setQuantity(id, 0);
    byId('cart-title').focus();
  };
  return element('li', {},
    element('span', { class: 'what' }, name),
    element('input', { id: `quantity-${id}`, type: 'number', min: 0, max: 1000, value: quantity, 'aria-label': text('cart.quantity', { name }), change: set }),
    element('span', { class: 'much' }, money({ amount: price.amount * quantity, currency: price.currency })),
    element('button', { type: 'button', class: 'plain', 'aria-label': text('cart.remove_name', { name }), click: drop }, '×'));
}

// Somebody who is logged in can pay; anybody else gets the form, in the same place.
function showTill(person) {
  const inForm = form?.contains(document.activeElement);
  form = person === null ? accountForm() : null;
  place.replaceChildren(form ?? till);
  showButton();
  if (person === null) return;
  if (inForm) cards.querySelector('input:checked').focus();
  // A reload, or a lost connection, came between a click and its answer.
  if (unanswered(person)) order();
}

function showButton() {
  const person = currentPerson();
  const open = person !== null && unanswered(person) !== null;
  button.textContent = busy ? text('pay.busy') : open ? text('pay.again') : text('pay.button', { total: money(total()) });
  button.setAttribute('aria-busy', String(busy));
  till.hidden = !busy && !open && lines().length === 0;
  // While nobody knows how the click ended, it can be sent again but not changed.
  cards.disabled = busy || open;
  list.querySelectorAll('input, button').forEach((one) => { one.disabled = busy || open; });
}

async function order(event) {
  event?.preventDefault();
  const person = currentPerson();
  if (busy || person === null) return;
  busy = true;
  trouble.replaceChildren();
  const card = cards.querySelector('input:checked').value;
  const paying = pay(person, lines(), card);
  showButton();
  try {
    const placed = await paying;
    clear();
    location.assign(`/shop/orders/${encodeURIComponent(placed.id)}`);
  } catch (problem) {
    busy = false;
    trouble.replaceChildren(failure(problem), ...soldOut(problem));
    showButton();
    button.focus();
    if (problem.code === 'out_of_stock') reload();
  }
}

// The lines that the answer names.
function soldOut(problem) {
  const named = problem.errors.map((error) => lines()[Number(/^lines\[(\d+)\]/.exec(error.field)?.[1])]?.name);
  return named.filter(Boolean).map((name) => element('p', { class: 'wrong' }, text('pay.line', { name })));
}
