// Requests to the API. Whatever may be sent twice is sent again when a replica is lost; whatever may not, is not.

const ATTEMPTS = 6;
const FIRST_PAUSE = 150;
const LONGEST_PAUSE = 4000;
const TIMEOUT = 15000;

// An answer that is an error: a problem document (RFC 9457), or no answer at all (`network`).
export class Problem extends Error {
  constructor({ status = 0, code = 'network', detail = '', errors = [], requestId = '' }) {
    super(detail || code);
    Object.assign(this, { status, code, detail, errors, requestId });
  }
}

// A value for `Idempotency-Key` or `X-Request-Id`. `crypto.randomUUID` is not there over plain HTTP.
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

// Sends a request and returns its status, headers and body. Throws a Problem for everything but success.
//
// GET, a request with a `key` and one that is `repeatable` are sent again, with growing pauses, while there is no
// answer or the answer is that the program behind is away.
export async function call(method, path, options = {}) {
  const repeatable = method === 'GET' || Boolean(options.key) || options.repeatable === true;
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await once(method, path, options);
    } catch (problem) {
      const again = repeatable && attempt < ATTEMPTS && !options.signal?.aborted && isPassing(problem);
      if (!again) throw problem;
      await pause(delay(attempt, problem.retryAfter), options.signal);
    }
  }
}

// One attempt.
async function once(method, path, { body, key, token, headers = {}, signal, timeout = TIMEOUT }) {
  const requestId = newId();
  const sent = new Headers({ accept: 'application/json', 'x-request-id': requestId, ...headers });
  if (body !== undefined) sent.set('content-type', 'application/json');
  if (key) sent.set('idempotency-key', key);
  if (token) sent.set('authorization', `Bearer ${token}`);
  const limits = [AbortSignal.timeout(timeout), signal].filter(Boolean);
  const began = performance.now();
  let response;
  let text;
  try {
    response = await fetch(path, { method, headers: sent, body, signal: AbortSignal.any(limits), cache: 'no-store' });
    text = await response.text();
  } catch (failed) {
    if (signal?.aborted) throw failed;
    throw new Problem({ requestId });
  }
  tell(method, path, response, performance.now() - began);
  const document = parsed(text);
  if (response.ok) return { status: response.status, headers: response.headers, body: document };
  throw problemOf(response, document, requestId);
}

// Tells the footer who has answered, and how fast.
export function tell(method, path, response, took) {
  const replica = response.headers.get('x-served-by') ?? '';
  document.dispatchEvent(new CustomEvent('answered', { detail: { method, path, replica, took } }));
}

export function problemOf(response, document, requestId) {
  const problem = new Problem({
    status: response.status,
    code: document?.code ?? 'internal',
    detail: document?.detail ?? '',
    errors: Array.isArray(document?.errors) ? document.errors : [],
    requestId: response.headers.get('x-request-id') ?? requestId,
  });
  problem.retryAfter = Number(response.headers.get('retry-after')) || 0;
  return problem;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// Whether the same request may succeed in a moment.
function isPassing(problem) {
  if (!(problem instanceof Problem)) return false;
  return [0, 502, 503, 504].includes(problem.status) || problem.code === 'idempotency_in_progress';
}

// Full jitter: clients that lost the same replica do not come back at the same moment.
export function delay(attempt, retryAfter = 0) {
  const longest = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1));
  return Math.max(retryAfter * 1000, longest / 2 + (Math.random() * longest) / 2);
}

// Waits, but no longer than until `signal` aborts.
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
