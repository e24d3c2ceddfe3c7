// The saga of one order as five steps, from its timeline: the table of order-service's checkout.rs. Pure.

const GONE = ['rejected', 'cancelling', 'cancelled', 'refunding', 'refunded'];

// For each step: its name, `done`, `undone`, `undoing`, `now`, `stuck`, `failed`, `skipped` or `todo`, and the move that
// made it so.
export function steps({ order, saga, timeline }) {
  const first = (...causes) => timeline.find((move) => causes.includes(move.cause));
  const entered = (...statuses) => timeline.find((move) => statuses.includes(move.to) && move.from !== move.to);
  const placed = timeline[0];
  const at = saga?.step ?? 'done';
  const working = saga?.state === 'stuck' ? 'stuck' : 'now';
  const released = entered(...GONE);
  const [authorized, captured] = [first('payment.authorized', 'payment.captured'), first('payment.captured')];
  const [declined, voided, refunded] = [first('payment.declined'), first('payment.voided'), first('payment.refunded')];
  const confirmed = entered('confirmed');
  const ended = GONE.includes(order.status);
  return [
    step('check', 'done', placed),
    released ? step('reserve', 'undone', released) : step('reserve', 'done', placed),
    authorizeStep(),
    captureStep(),
    confirmed ? (released ? step('confirm', 'undone', released) : step('confirm', 'done', confirmed)) : step('confirm', ended ? 'skipped' : 'todo'),
  ];

  function authorizeStep() {
    if (at === 'authorize') return step('authorize', working);
    if (at === 'void') return step('authorize', working === 'stuck' ? 'stuck' : 'undoing');
    if (voided) return step('authorize', 'undone', voided);
    if (authorized) return step('authorize', 'done', authorized);
    return step('authorize', declined || ended ? 'failed' : 'todo', declined ?? released);
  }

  function captureStep() {
    if (at === 'capture') return step('capture', working);
    if (at === 'refund') return step('capture', working === 'stuck' ? 'stuck' : 'undoing');
    if (refunded) return step('capture', 'undone', refunded);
    if (captured) return step('capture', 'done', captured);
    if (declined && authorized) return step('capture', 'failed', declined);
    return step('capture', ended ? 'skipped' : 'todo');
  }
}

const step = (name, is, move = null) => ({ name, is, move });
