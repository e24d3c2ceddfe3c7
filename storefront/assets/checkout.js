// One click on Pay is one order, whatever happens on the way. The click's key and body are kept until there is an
// answer, also over a reload; with the same key the API answers the same order again and makes no second one.

import { newId } from './api.js';
import { authorized } from './session.js';

const PLACE = 'click';
// An order is answered when it is confirmed, or after this many seconds.
const WAIT = 2;
// A click without an answer is sent again for so long. The API keeps a key for a day.
const LIFE = 60 * 60 * 1000;
// After these the order of an earlier attempt may exist.
const UNDECIDED = [401, 408, 425, 429];

// The click of this person that has no answer yet, or null.
export function unanswered(person) {
  try {
    const click = JSON.parse(sessionStorage.getItem(PLACE) ?? 'null');
    return click?.person === person.id && Date.now() - click.at < LIFE ? click : null;
  } catch {
    return null;
  }
}

// Returns the order. A Problem that says nothing about the order leaves the click unanswered: send it again.
export async function pay(person, lines, card) {
  const click = unanswered(person) ?? keep({
    person: person.id,
    at: Date.now(),
    key: newId(),
    body: JSON.stringify({ lines: lines.map(({ id, quantity }) => ({ product_id: id, quantity })), payment_token: card }),
  });
  try {
    const answer = await authorized('POST', '/api/orders', {
      key: click.key,
      body: click.body,
      headers: { prefer: `wait=${WAIT}` },
    });
    forget();
    return answer.body;
  } catch (problem) {
    if (isRefusal(problem)) forget();
    throw problem;
  }
}

// Nothing was ordered, and the key is free.
function isRefusal({ status, code }) {
  return status >= 400 && status < 500 && !UNDECIDED.includes(status) && code !== 'idempotency_in_progress';
}

function keep(click) {
  sessionStorage.setItem(PLACE, JSON.stringify(click));
  return click;
}

function forget() {
  sessionStorage.removeItem(PLACE);
}
