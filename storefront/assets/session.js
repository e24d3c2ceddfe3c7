// Who is logged in. The access token is in this variable and nowhere else; the refresh token is in a cookie that no
// script can read, and `/shop/session` is what turns it into the next access token.

import { Problem, call } from './api.js';

// Before it ends, a token is replaced.
const MARGIN = 20000;

let access = null;
let renewing = null;
// Undefined until it is known.
let person;
const listeners = new Set();

// Calls `listener` with the person, or null, as soon as it is known and at every change.
export function watchPerson(listener) {
  listeners.add(listener);
  if (person !== undefined) listener(person);
}

// Continues the session of an earlier page, if there is one.
export async function resume() {
  try {
    await token();
  } catch (problem) {
    become(null, null);
    throw problem;
  }
}

export const currentPerson = () => person ?? null;

export async function logIn(email, password) {
  const answer = await call('POST', '/shop/session', { body: JSON.stringify({ email, password }), repeatable: true });
  await accept(answer.body);
}

export async function logOut() {
  try {
    await authorized('DELETE', '/api/sessions/current', { repeatable: true });
  } catch (problem) {
    // The session may have ended already.
    if (problem.status !== 401) throw problem;
  }
  await call('DELETE', '/shop/session', { repeatable: true });
  become(null, null);
}

// A request as the person who is logged in. If the token is refused, it is renewed once.
export async function authorized(method, path, options = {}) {
  const first = await token();
  if (first === null) throw new Problem({ status: 401, code: 'missing_token' });
  try {
    return await call(method, path, { ...options, token: first });
  } catch (problem) {
    if (problem.status !== 401) throw problem;
  }
  access = null;
  const second = await token();
  if (second === null) throw new Problem({ status: 401, code: 'missing_token' });
  return call(method, path, { ...options, token: second });
}

// A token that is valid for a while, or null. Requests at the same time wait for the same renewal.
export async function token() {
  if (access !== null && Date.now() < access.until - MARGIN) return access.token;
  renewing ??= renew().finally(() => { renewing = null; });
  await renewing;
  return access?.token ?? null;
}

async function renew() {
  try {
    const answer = await call('POST', '/shop/session/refresh', { repeatable: true });
    if (answer.status === 204) become(null, null);
    else await accept(answer.body);
  } catch (problem) {
    if (problem.status !== 401) throw problem;
    become(null, null);
  }
}

async function accept({ access_token: value, expires_in: seconds }) {
  const kept = { token: value, until: Date.now() + seconds * 1000 };
  // In another tab somebody else may have logged in: all tabs share the cookie.
  const isSame = person?.id === subject(value);
  become(kept, isSame ? person : (await call('GET', '/api/users/me', { token: value })).body);
}

// The id of the person whom a token is for (RFC 7519).
function subject(token) {
  const claims = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
  return JSON.parse(atob(claims)).sub;
}

function become(tokens, who) {
  access = tokens;
  const changed = person === undefined || person?.id !== who?.id;
  person = who;
  if (changed) listeners.forEach((listener) => listener(person));
}
