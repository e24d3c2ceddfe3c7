// Starts the console: finds out who is logged in, then shows the view of the address.

import { call, whenSessionEnds } from './api.js';
import { byId } from './dom.js';
import { showFrame } from './frame.js';
import { startKeys } from './keys.js';
import { startLive } from './live.js';
import { showLogIn } from './login.js';
import { failure } from './pieces.js';
import { go, startRouter } from './router.js';
import { watchSession } from './session.js';
import { text } from './texts.js';

byId('skip').textContent = text('frame.skip');

whenSessionEnds(() => location.replace(`/login?next=${encodeURIComponent(location.pathname + location.search)}`));

async function start() {
  try {
    const session = await call('GET', '/api/session');
    showFrame(session);
    watchSession(session);
  } catch (problem) {
    if (problem.status !== 401) byId('main').replaceChildren(failure(problem, start));
    return;
  }
  startKeys(() => go('/orders'));
  startLive();
  startRouter();
}

if (location.pathname === '/login') showLogIn();
else await start();
