// The rows of the waterfall. A row opens to show what is known of it.

import { element, unseen } from './dom.js';
import { facts, idOf } from './pieces.js';
import { clock, duration, text } from './texts.js';

const MARKS = { client: '→', server: '', producer: '✉', consumer: '✉', internal: '' };

// `colour(service)` is the class of its colour, `scale` the length of the whole in milliseconds.
export function spanRow({ span, depth, attempt, since, own }, { colour, scale }) {
  const isData = Object.keys(span.attributes).some((key) => key.startsWith('db.'));
  const mark = isData ? '▤' : MARKS[span.kind] ?? '';
  const tries = attempt && element('span', { class: 'attempt' }, text('trace.attempt', { number: attempt }), span.error ? ' ✕' : ' ✓');
  const label = element('span', { class: 'label', title: `${span.service}: ${span.name}`, style: { 'padding-left': `${Math.min(depth, 12) * 14}px` } },
    element('span', { class: `service ${colour(span.service)}` }, span.service), ' ',
    mark && element('span', { class: 'mark', 'aria-hidden': 'true' }, mark, ' '), tries, tries && ' ', span.name,
    span.error && element('span', { class: 'state failing' }, ' ▲', unseen(text('trace.error'))));
  return opening(span, label, [
    since !== null && element('span', { class: 'gap', title: text('trace.waiting', { time: duration(span.offset_ms - since) }), style: across(since, span.offset_ms - since, scale) }),
    element('span', { class: `length whole ${colour(span.service)}${span.error ? ' bad' : ''}`, style: across(span.offset_ms, span.duration_ms, scale) }),
    own.map(([from, to]) => element('span', { class: `length own ${colour(span.service)}`, style: across(from, to - from, scale) })),
    element('span', { class: 'took', style: takes(span, since, scale) }, duration(span.duration_ms)),
  ], () => spanFacts(span));
}

export function logRow({ log, depth }, { scale }) {
  const label = element('span', { class: 'label', title: log.message, style: { 'padding-left': `${Math.min(depth, 12) * 14}px` } },
    element('span', { class: `level is-${log.level}` }, log.level), ' ', log.message);
  const dot = element('span', { class: `dot is-${log.level}`, title: clock(log.at), style: { left: `${Math.min(100, (log.offset_ms / scale) * 100)}%` } });
  return opening(log, label, [dot], () => logFacts(log), 'log');
}

// A line with a button; the click shows the facts below it, and hides them.
export function opening(item, label, bars, details, kind = 'span') {
  const below = element('div', { class: 'details', hidden: true });
  const toggle = () => {
    below.hidden = !below.hidden;
    button.setAttribute('aria-expanded', String(!below.hidden));
    if (!below.hidden && below.children.length === 0) below.append(details());
  };
  const button = element('button', { type: 'button', class: 'line', 'data-row': true, 'aria-expanded': 'false', 'data-kind': kind, 'data-id': item.id, click: toggle },
    label, element('span', { class: 'track' }, bars));
  return element('li', { class: kind }, button, below);
}

const across = (from, length, scale) => ({ left: `${(from / scale) * 100}%`, width: `${(length / scale) * 100}%` });

// The duration is written after the bar, or before it (and its wait) where there is no room.
function takes(span, since, scale) {
  const end = (span.offset_ms + span.duration_ms) / scale;
  const begin = (since ?? span.offset_ms) / scale;
  return end < 0.85 || begin < 0.1 ? { left: `${Math.min(end, 0.9) * 100}%` } : { right: `${(1 - begin) * 100}%` };
}

function spanFacts(span) {
  return element('div', {},
    span.message && element('p', { class: 'state failing' }, span.message),
    facts([
      [text('trace.kind'), text(`kind.${span.kind}`)],
      [text('trace.begin'), `+${duration(span.offset_ms)}`],
      [text('trace.duration'), duration(span.duration_ms)],
      [text('trace.instance'), span.instance],
      [text('trace.span'), idOf(span.id)],
      ...attributes(span.attributes),
      ...span.events.map((event) => [`+${duration(event.offset_ms)}`, [event.name, ' ', element('code', {}, JSON.stringify(event.attributes))]]),
    ]),
    links(span));
}

function links(span) {
  return span.links.length > 0 && element('p', {}, text('trace.links'), ' ', span.links.map((link) => [element('a', { href: `/traces/${encodeURIComponent(link.trace_id)}` }, link.trace_id.slice(0, 8)), ' ']));
}

export function logFacts(log) {
  return facts([
    [text('logs.when'), clock(log.at)],
    [text('trace.service'), log.service],
    [text('trace.instance'), log.instance],
    [text('trace.trace'), log.trace_id && element('a', { href: `/traces/${encodeURIComponent(log.trace_id)}` }, log.trace_id)],
    ...attributes(log.attributes),
  ]);
}

const attributes = (all) => Object.entries(all).map(([key, value]) => [key, element('code', {}, typeof value === 'string' ? value : JSON.stringify(value))]);
