// Server-sent events over fetch: EventSource cannot send an Authorization header. Reconnects, and tells the server
// the last event that it has seen.

import { delay, pause, problemOf, tell } from './api.js';
import { token } from './session.js';

const RETRY = 2000;

// Follows the stream at `path` until `signal` aborts or `onEvent` returns true. `onState` is told `open`, with the replica, and `lost`.
export async function follow(path, { onEvent, onState, signal }) {
  let last = '';
  for (let failures = 0; !signal.aborted; ) {
    try {
      const response = await open(path, last, signal);
      onState('open', response.headers.get('x-served-by') ?? '');
      failures = 0;
      for await (const event of events(response.body)) {
        if (event.id) last = event.id;
        if (event.data && onEvent(event)) return;
      }
      // The server has ended it: the token has, or the server stops. That is not a fault.
      await pause(100, signal);
    } catch (failed) {
      if (signal.aborted) return;
      if (failed.status >= 400 && failed.status < 500 && failed.status !== 429) throw failed;
      onState('lost');
      failures += 1;
      await pause(Math.min(RETRY, delay(failures, failed.retryAfter)), signal);
    }
  }
}

async function open(path, last, signal) {
  const headers = new Headers({ accept: 'text/event-stream' });
  const bearer = await token();
  if (bearer) headers.set('authorization', `Bearer ${bearer}`);
  if (last) headers.set('last-event-id', last);
  const began = performance.now();
  const response = await fetch(path, { headers, signal, cache: 'no-store' });
  tell('GET', path, response, performance.now() - began);
  if (response.ok) return response;
  throw problemOf(response, await response.json().catch(() => null), '');
}

// The events of a stream: `{ id, event, data }`.
async function* events(body) {
  let rest = '';
  for await (const chunk of chunks(body)) {
    rest += chunk;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) yield parse(block);
  }
}

async function* chunks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

function parse(block) {
  const event = { id: '', event: 'message', data: '' };
  for (const line of block.split(/\r?\n/)) {
    const colon = line.indexOf(':');
    if (colon <= 0) continue;
    const value = line.slice(colon + 1).replace(/^ /, '');
    const name = line.slice(0, colon);
    if (name === 'data') event.data += event.data ? `\n${value}` : value;
    else if (name in event) event[name] = value;
  }
  return event;
}
