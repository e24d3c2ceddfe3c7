// fetch of Node, which is undici.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

const { BASE, TOKEN, PRODUCT } = process.env;
const call = (path, options = {}) =>
  fetch(BASE + path, {
    ...options,
    headers: { authorization: `Bearer ${TOKEN}`, ...options.headers },
    signal: AbortSignal.timeout(20_000),
  });

const products = await call('/api/products');
assert.equal(products.status, 200);
assert.ok((await products.json()).products.length > 0);

const key = randomUUID();
const place = async () => {
  const answer = await call('/api/orders', {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'idempotency-key': key },
    body: JSON.stringify({ lines: [{ product_id: PRODUCT, quantity: 1 }], payment_token: 'tok_visa' }),
  });
  assert.equal(answer.status, 201);
  return (await answer.json()).id;
};
const id = await place();
assert.equal(await place(), id);

const stream = await call(`/api/orders/${id}/events`);
assert.equal(stream.headers.get('content-type'), 'text/event-stream');
let text = '';
for await (const part of stream.body.pipeThrough(new TextDecoderStream())) {
  text += part;
  if (text.includes('event: order.confirmed\n')) break;
}
assert.match(text, /event: order\.confirmed\n/);

const head = await call('/api/products', { method: 'HEAD' });
assert.equal(head.status, 200);
assert.equal(await head.text(), '');

const nothing = await call('/api/nothing');
assert.equal(nothing.status, 404);
assert.equal(nothing.headers.get('content-type'), 'application/problem+json');
assert.equal((await nothing.json()).code, 'not_found');
