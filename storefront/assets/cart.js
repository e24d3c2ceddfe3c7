// The cart. It is kept in this browser, so that it outlives a reload; there is nothing secret in it.

const PLACE = 'cart';
const MOST = 1000;
const MOST_LINES = 50;

const listeners = new Set();

export function watchCart(listener) {
  listeners.add(listener);
  // Another tab has changed it.
  addEventListener('storage', (event) => { if (event.key === PLACE) listener(lines()); });
  listener(lines());
}

export function lines() {
  try {
    const kept = JSON.parse(localStorage.getItem(PLACE) ?? '[]');
    return kept.filter((line) => typeof line.id === 'string' && typeof line.name === 'string' && Number.isInteger(line.quantity) && Number.isInteger(line.price?.amount));
  } catch {
    return [];
  }
}

// Returns how many of it are in the cart now.
export function add({ id, sku, name, price }) {
  const all = lines();
  const known = all.find((line) => line.id === id);
  if (known) known.quantity = Math.min(MOST, known.quantity + 1);
  else if (all.length < MOST_LINES) all.push({ id, sku, name, price, quantity: 1 });
  keep(all);
  return all.find((line) => line.id === id)?.quantity ?? 0;
}

// Zero removes it.
export function setQuantity(id, quantity) {
  const wanted = Math.max(0, Math.min(MOST, Math.trunc(quantity) || 0));
  keep(lines().map((line) => (line.id === id ? { ...line, quantity: wanted } : line)).filter((line) => line.quantity > 0));
}

export const clear = () => keep([]);

export function total() {
  const all = lines();
  const amount = all.reduce((sum, line) => sum + line.quantity * line.price.amount, 0);
  return { amount, currency: all[0]?.price.currency ?? 'EUR' };
}

function keep(all) {
  try {
    localStorage.setItem(PLACE, JSON.stringify(all));
  } catch {
    // A browser that keeps nothing still shows the cart until the page is left.
  }
  listeners.forEach((listener) => listener(all));
}
