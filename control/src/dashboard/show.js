// Numbers as people read them, and small helpers for the document.

/// Sets text only where it differs: selections and screen readers are left in peace.
export function put(at, text) {
  if (at.textContent !== text) at.textContent = text;
}

export function attributes(at, all) {
  for (const [name, value] of Object.entries(all)) {
    if (value === undefined) at.removeAttribute(name);
    else if (at.getAttribute(name) !== String(value)) at.setAttribute(name, value);
  }
  return at;
}

export function element(name, all = {}, ...children) {
  const made = attributes(document.createElement(name), all);
  made.append(...children);
  return made;
}

export function drawn(name, all = {}, ...children) {
  const made = attributes(document.createElementNS("http://www.w3.org/2000/svg", name), all);
  made.append(...children);
  return made;
}

const three = (number) => (number >= 100 ? number.toFixed(0) : number >= 10 ? number.toFixed(1) : number.toFixed(2));

/// Requests in a second.
export function rate(rps) {
  if (!rps) return "0/s";
  return rps >= 10000 ? `${three(rps / 1000)}k/s` : `${three(rps)}/s`;
}

/// A share; rounded down, so that 100 % means all.
export function percent(share) {
  if (share === undefined || share === null) return "–";
  return share === 1 ? "100\u00a0%" : `${(Math.floor(share * 10000) / 100).toFixed(2)}\u00a0%`;
}

export function time(seconds) {
  if (seconds === undefined || seconds === null || seconds < 0) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)}\u00a0µs`;
  return seconds < 1 ? `${three(seconds * 1000)}\u00a0ms` : `${three(seconds)}\u00a0s`;
}

/// A span of time, coarsely.
export function span(seconds) {
  if (seconds === undefined || seconds === null) return "–";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${Math.floor(seconds / size)}\u00a0${unit}`;
  }
  return `${Math.round(seconds)}\u00a0s`;
}

export function bytes(perSecond) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (perSecond >= size) return `${three(perSecond / size)}\u00a0${unit}/s`;
  }
  return `${Math.round(perSecond)}\u00a0B/s`;
}

/// How good a success rate is: a word for the style sheet.
export function tone(row) {
  const share = row.successRate;
  if (share === undefined) return row.rps || row.connections ? "good" : "idle";
  return share >= 0.995 ? "good" : share >= 0.95 ? "warn" : "bad";
}
