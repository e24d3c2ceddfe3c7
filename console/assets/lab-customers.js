// How many customers order and cancel at the gateway, by a slider.

import { call } from './api.js';
import { element } from './dom.js';
import { every } from './live.js';
import { failure } from './pieces.js';
import { count, text } from './texts.js';

const EVERY = 2000;
const MOST = 50;

export function showCustomers(place, signal) {
  const trouble = element('div', {});
  const told = element('output', { id: 'customers-told', for: 'customers-count' });
  const slider = element('input', { type: 'range', id: 'customers-count', min: 0, max: MOST, step: 1, value: 0, input: tell, change: set });
  const figures = element('span', { id: 'customers-figures', class: 'quiet' });
  const full = element('span', { id: 'customers-full' });
  let touched = false;
  place.append(element('div', { class: 'row' }, element('label', { for: slider.id }, text('lab.customers')), slider, told, figures, full), trouble);
  tell();
  every(EVERY, refresh, signal);

  function tell() {
    touched = true;
    told.textContent = count(slider.value);
  }

  async function set() {
    trouble.replaceChildren();
    try {
      update(await call('PUT', '/api/lab/customers', { body: { count: Number(slider.value) } }));
    } catch (problem) {
      trouble.replaceChildren(failure(problem, set));
    } finally {
      touched = false;
    }
  }

  async function refresh() {
    // What fails here fails in the list of faults too, which says so.
    const answer = await call('GET', '/api/lab/customers', { signal }).catch(() => null);
    if (answer) update(answer);
  }

  // The slider is left alone while somebody moves it.
  function update({ count: wanted, orders, cancelled, retries, is_full: isFull }) {
    figures.textContent = text('lab.customers.figures', { orders: count(orders), cancelled: count(cancelled), retries: count(retries) });
    full.textContent = isFull ? text('lab.customers.full') : '';
    if (document.activeElement === slider && touched) return;
    slider.value = wanted;
    told.textContent = count(wanted);
  }
}
