// Whose page this is. Tabs share the cookie of the session: another one can end it, or log in somebody else.

import { call } from './api.js';

const tabs = new BroadcastChannel('session');
let person = null;

export function watchSession({ id }) {
  person = id;
  tabs.addEventListener('message', checkSession);
}

// Tells the other tabs that this one has logged in or out.
export const announceSession = () => tabs.postMessage('changed');

// If the session has ended, the call leads to the log-in.
export async function checkSession() {
  const session = await call('GET', '/api/session').catch(() => null);
  if (session && session.id !== person) location.reload();
}
