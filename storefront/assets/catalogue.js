// The shelves: cards of products, more of them on request, and a search as one types.

import { call } from './api.js';
import { add } from './cart.js';
import { byId, element } from './dom.js';
import { failure } from './frame.js';
import { count, money, text } from './texts.js';

const PAUSE = 150;
const LIMIT = 24;

const shelves = byId('shelves');
const found = byId('found');
const more = byId('more');
const state = byId('shelves-state');
const query = byId('q');
let running = null;
let timer = 0;

export function startCatalogue() {
  query.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(() => search(), PAUSE);
  });
  byId('search').addEventListener('submit', (event) => {
    event.preventDefault();
    clearTimeout(timer);
    search();
  });
  return load(new URLSearchParams(location.search).get('cursor'), false);
}

// What the field says. The address follows, so that it can be sent to somebody.
function search() {
  const address = query.value ? `/?q=${encodeURIComponent(query.value)}` : '/';
  history.replaceState(null, '', address);
  return load(null, true);
}

export const reload = () => load(null, false);

// Replaces the cards, or with `append` adds the next page. Old ones stay until new ones are there.
async function load(cursor, aloud, append = false) {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  const parts = new URLSearchParams({ limit: String(LIMIT) });
  if (query.value) parts.set('q', query.value);
  if (cursor) parts.set('cursor', cursor);
  const slow = setTimeout(() => shelves.classList.add('old'), 200);
  try {
    const { body } = await call('GET', `/api/products?${parts}`, { signal: mine.signal });
    if (running !== mine) return;
    show(body, append);
    if (aloud) found.textContent = text('search.found', { count: count(body.products.length) + (body.next_cursor ? '+' : '') });
  } catch (problem) {
    if (mine.signal.aborted) return;
    shelves.classList.add('old');
    state.replaceChildren(failure(problem, () => load(cursor, aloud, append)));
    return;
  } finally {
    clearTimeout(slow);
  }
  shelves.classList.remove('old');
}

function show({ products, next_cursor: next }, append) {
  const cards = products.map(card);
  if (append) shelves.append(...cards);
  else shelves.replaceChildren(...cards);
  const none = query.value ? text('search.none', { part: query.value }) : text('catalogue.empty');
  state.replaceChildren(...(products.length || append ? [] : [element('p', { class: 'quiet' }, none)]));
  const showMore = async () => {
    await load(next, false, true);
    // The focus goes to the first new card.
    cards[0] && shelves.children[shelves.children.length - 1].querySelector('button')?.focus();
  };
  more.replaceChildren(...(next ? [element('button', { type: 'button', click: showMore }, text('catalogue.more'))] : []));
}

function card(product) {
  const gone = product.available <= 0;
  const put = () => {
    const quantity = add(product);
    found.textContent = quantity ? text('cart.added', { name: product.name, count: count(quantity) }) : text('cart.full');
  };
  return element('li', { class: 'card', 'data-product': product.id },
    element('img', { src: `/shop/pictures/${encodeURIComponent(product.sku)}`, alt: '', width: 240, height: 180, loading: 'lazy' }),
    element('h2', {}, product.name),
    element('p', { class: 'quiet' }, product.description),
    element('p', { class: 'price' }, money(product.price)),
    element('p', { class: 'left' }, gone ? text('product.none') : text('product.left', { count: count(product.available) })),
    element('button', { type: 'button', disabled: gone, 'aria-label': text('cart.add_name', { name: product.name }), click: put }, text('cart.add')));
}
