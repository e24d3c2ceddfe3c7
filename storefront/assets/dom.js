// Builds elements. What comes from data becomes text or an attribute; nothing is ever read as HTML.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const byId = (id) => document.getElementById(id);

// What is read aloud but not shown.
export const unseen = (text) => element('span', { class: 'unseen' }, text);

// Shows `waiting` in `place` if `promise` takes longer than 200 ms.
export async function withLoadingText(place, waiting, promise) {
  const timer = setTimeout(() => place.replaceChildren(element('p', { class: 'quiet' }, waiting)), 200);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
  }
}
