// Requests to the console's own program. The session is a cookie that no script can read.

const TIMEOUT = 15000;

// An answer that is an error: a problem document (RFC 9457), or no answer at all (`network`).
export class Problem extends Error {
  constructor({ status = 0, code = 'network', detail = '', requestId = '' }) {
    super(detail || code);
    Object.assign(this, { status, code, detail, requestId });
  }
}

// Sends a request once and returns the body of its answer. Throws a Problem for everything but success.
export async function call(method, path, { body, signal } = {}) {
  const headers = new Headers({ accept: 'application/json' });
  if (body !== undefined) headers.set('content-type', 'application/json');
  const limits = [AbortSignal.timeout(TIMEOUT), signal].filter(Boolean);
  let response;
  let text;
  try {
    const sent = body === undefined ? undefined : JSON.stringify(body);
    response = await fetch(path, { method, headers, body: sent, signal: AbortSignal.any(limits), cache: 'no-store' });
    text = await response.text();
  } catch (failed) {
    if (signal?.aborted) throw failed;
    throw new Problem({});
  }
  const document = parsed(text);
  if (response.ok) return document;
  const problem = new Problem({
    status: response.status,
    code: document?.code ?? 'internal',
    detail: document?.detail ?? '',
    requestId: response.headers.get('x-request-id') ?? '',
  });
  if (problem.status === 401 && problem.code !== 'invalid_credentials') onSessionEnd();
  throw problem;
}

// Called when the session has ended; main.js leads to the log-in then.
let onSessionEnd = () => {};
export const whenSessionEnds = (listener) => { onSessionEnd = listener; };

// The query of an address, without empty values.
export function query(values) {
  const parts = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== '' && value !== null && value !== undefined));
  return parts.size ? `?${parts}` : '';
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
