// Builds elements. What comes from data becomes text or an attribute; nothing is ever read as HTML.

const SVG = 'http://www.w3.org/2000/svg';

export const element = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// A function listens, an object is the style, `true` is an attribute without a value; null and false are left out.
function fill(made, attributes = {}, children = []) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, '');
    else if (name === 'style') Object.entries(value).forEach(([property, one]) => made.style.setProperty(property, one));
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const byId = (id) => document.getElementById(id);

// What is read aloud but not shown.
export const unseen = (text) => element('span', { class: 'unseen' }, text);

// A table that scrolls inside itself. A head is `[text, class]`.
export function table(label, heads, body, attributes = {}) {
  return element('div', { class: 'scrolls', tabindex: 0, role: 'region', 'aria-label': label, ...attributes },
    element('table', {},
      element('thead', {}, element('tr', {}, heads.map(([head, kind]) => element('th', { scope: 'col', class: kind }, head)))),
      body));
}

// Replaces the children of `place`. What had the focus has it again, if it is still there by its id, and what was
// scrolled stays so.
export function replace(place, ...children) {
  const focused = place.contains(document.activeElement) ? document.activeElement.id : '';
  const scrolled = [...place.querySelectorAll('.scrolls')].map((one) => one.scrollLeft);
  place.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  [...place.querySelectorAll('.scrolls')].forEach((one, index) => { one.scrollLeft = scrolled[index] ?? 0; });
  if (focused) byId(focused)?.focus({ preventScroll: true });
}

// In a window narrower than `width`, moves `one` before `other`: what the eye meets first, the keyboard reaches first.
export function firstIfNarrow(width, one, other, signal) {
  const narrow = matchMedia(`(max-width: ${width - 1}px)`);
  const [parent, next] = [one.parentNode, one.nextSibling];
  const place = () => (narrow.matches ? other.before(one) : parent.insertBefore(one, next));
  narrow.addEventListener('change', place, { signal });
  place();
}

// Shows `waiting` in `place` if `promise` takes longer than 200 ms.
export async function withLoadingText(place, waiting, promise) {
  const timer = setTimeout(() => place.replaceChildren(element('p', { class: 'quiet' }, waiting)), 200);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
  }
}
