// The failure lab: customers who order, faults that a click starts, what they do to the programs, and the promises that
// hold all the same.

import { element, firstIfNarrow } from './dom.js';
import { showCards } from './lab-cards.js';
import { showCustomers } from './lab-customers.js';
import { showInvariants } from './lab-invariants.js';
import { showSmallMap } from './lab-map.js';
import { text } from './texts.js';

export function show(place, { signal }) {
  const [customers, faults, map, invariants] = ['customers', 'faults-list', 'lab-map', 'invariants'].map((id) => element('section', { id }));
  place.append(element('h1', {}, text('page.lab')), element('p', {}, text('lab.why')), customers,
    element('div', { class: 'lab' }, faults, map, invariants));
  firstIfNarrow(1500, map, faults, signal);
  showCustomers(customers, signal);
  showCards(faults, signal);
  showSmallMap(map, signal);
  showInvariants(invariants, signal);
}
