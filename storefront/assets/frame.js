// What every page has: who is logged in, which replica has answered last, and a bar for what is wrong.

import { byId, element } from './dom.js';
import { startKeys } from './keys.js';
import { idOf } from './pieces.js';
import { logOut, resume, watchPerson } from './session.js';
import { clock, explain, text } from './texts.js';

const who = byId('who');
const notice = byId('notice');

startKeys();

document.addEventListener('answered', ({ detail: { method, path, replica, took } }) => {
  if (!replica) return;
  byId('last').textContent = text('frame.last', { replica, time: took.toFixed(0), request: `${method} ${path.split('?')[0]}` });
});

watchPerson((person) => {
  who.replaceChildren(...(person === null
    ? [element('a', { href: '#account' }, text('frame.login'))]
    : [element('span', { class: 'person' }, person.name), ' ', element('button', { type: 'button', class: 'plain', click: leave }, text('frame.logout'))]));
});

async function leave() {
  try {
    await logOut();
    byId('main').focus();
  } catch (problem) {
    warn(explain(problem));
  }
}

// Shows a sentence above the page, until it is called with null.
export function warn(sentence) {
  notice.hidden = sentence === null;
  notice.textContent = sentence ?? '';
}

// The connection is gone: says so, and since when, until it is back.
export function connection(state) {
  if (state === 'open') warn(null);
  else if (notice.hidden) warn(text('frame.offline', { time: clock(new Date().toISOString()) }));
}

// An error where it happened: what failed, what to do, and the request id small below.
export function failure(problem, again = null) {
  return element('div', { class: 'error', role: 'alert' },
    element('p', {}, explain(problem)),
    again && element('button', { type: 'button', click: again }, text('error.again')),
    problem.requestId && element('p', {}, element('small', {}, text('error.request'), ' ', idOf(problem.requestId))));
}

// Who is logged in, from an earlier page. Without an answer nobody is, and the bar says so.
export async function begin() {
  try {
    await resume();
  } catch (problem) {
    warn(explain(problem));
  }
}
