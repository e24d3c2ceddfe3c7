// One route: its strategy, the shares of versions, and what both do: the share of each replica.

import { call } from './api.js';
import { element, replace } from './dom.js';
import { rateOf } from './map-rates.js';
import { versionOf } from './map-tables.js';
import { facts, failure, say, stateOf } from './pieces.js';
import { nodeAddress } from './summary.js';
import { percent, rate, text, word } from './texts.js';

export function routePanel(title, body, id) {
  const state = element('div', {});
  const trouble = element('div', {});
  const choice = element('select', { id: 'strategy', change });
  const does = element('p', { class: 'quiet', id: 'strategy-does' });
  const versions = element('div', { id: 'versions' });
  const shares = element('div', { id: 'shares' });
  body.replaceChildren(state,
    element('div', { class: 'field' }, element('label', { for: 'strategy' }, text('map.strategy')), choice, does), trouble, versions, shares);
  return (map) => {
    const route = map.routes.find((one) => one.id === id);
    title.textContent = text('panel.route', { id });
    if (!route) return replace(body, element('p', { class: 'quiet' }, text('panel.gone')));
    const node = map.nodes.find((one) => one.kind === 'service' && one.name === route.service);
    replace(state, facts([
      [text('map.prefix'), element('code', {}, route.prefix)],
      [text('map.service'), node ? element('a', { href: nodeAddress(node) }, route.service) : route.service]]));
    if (document.activeElement !== choice) {
      if (choice.options.length !== map.strategies.length) choice.replaceChildren(...map.strategies.map((name) => element('option', { value: name }, word('strategy', name))));
      choice.value = route.strategy;
    }
    does.textContent = text(`strategy.${choice.value}.does`);
    replace(versions, versionShares(route.versions));
    if (node) showShares(shares, node);
  };

  async function change() {
    trouble.replaceChildren();
    choice.blur();
    does.textContent = text(`strategy.${choice.value}.does`);
    try {
      await call('PUT', `/api/routes/${encodeURIComponent(id)}/strategy`, { body: { strategy: choice.value } });
      say(text('ask.done'));
    } catch (problem) {
      trouble.replaceChildren(failure(problem));
    }
  }
}

// What the file of the gateway, or its canary, gives each version.
function versionShares(versions) {
  const shares = Object.entries(versions?.shares ?? {});
  const canary = versions?.canary;
  return [element('h3', {}, text('panel.versions')),
    shares.length === 0 && element('p', { class: 'quiet' }, text('panel.all_versions')),
    shares.map(([version, share]) => element('div', { class: 'share', 'data-version': version },
      element('span', { style: { 'grid-column': '1 / 3' } }, version, version === canary?.version && ` · ${text('map.canary')}`), element('span', { class: 'much' }, percent(share)), meter(share))),
    canary && element('p', { class: 'quiet', id: 'canary' }, canaryState(canary))];
}

function canaryState({ version, state }) {
  const words = text(`panel.canary.${state}`, { version });
  return state === 'rolled_back' ? stateOf('degraded', words) : words;
}

const meter = (share) => element('span', { class: 'meter' }, element('span', { style: { width: `${share * 100}%` } }));

// The service's requests of the last ten seconds, by replica, of all its routes.
function showShares(place, node) {
  const rates = node.replicas.map((replica) => rateOf(node, replica) ?? 0);
  const all = rates.reduce((sum, one) => sum + one, 0);
  replace(place, element('h3', {}, text('panel.shares')),
    all === 0 ? element('p', { class: 'quiet' }, text('panel.no_requests'))
      : node.replicas.map((replica, index) => element('div', { class: 'share', 'data-replica': replica.id },
        stateOf(replica.state, '', true), element('span', {}, replica.id, ' ', element('span', { class: 'quiet small' }, versionOf(replica))),
        element('span', { class: 'much' }, `${percent(rates[index] / all)} · ${rate(rates[index])}`),
        meter(rates[index] / all))));
}

