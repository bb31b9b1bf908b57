// Where boxes stand. Pure and deterministic: the same nodes and edges give the same picture, whatever their order.

/// Columns from left to right, callers before whom they call.
/// ids: names of nodes; edges: [from, to] pairs. Returns a map from name to {column, row} and the numbers of both.
export function layers(ids, edges) {
  const names = [...new Set(ids)].sort();
  const known = new Set(names);
  const pairs = edges.filter(([a, b]) => a !== b && known.has(a) && known.has(b));
  const out = new Map(names.map((n) => [n, []])), into = new Map(names.map((n) => [n, []]));
  for (const [a, b] of [...pairs].sort()) out.get(a).push(b);
  for (const [a, b] of forward(names, out)) into.get(b).push(a);
  const columns = ranked(names, into);
  const linked = new Set(pairs.flat());
  const alone = names.filter((n) => !linked.has(n));
  const stacked = arrange(columns.map((column) => column.filter((n) => linked.has(n))), pairs);
  return placed(stacked, alone);
}

/// The edges that remain when those that close a circle are left out.
function forward(names, out) {
  const called = new Set([...out.values()].flat());
  const starts = [...names.filter((n) => !called.has(n)), ...names];
  const state = new Map(), kept = [];
  for (const start of starts) {
    if (state.has(start)) continue;
    const path = [[start, 0]];
    state.set(start, "open");
    while (path.length) {
      const top = path.at(-1), next = out.get(top[0])[top[1]++];
      if (next === undefined) { state.set(top[0], "done"); path.pop(); continue; }
      if (state.get(next) === "open") continue;
      kept.push([top[0], next]);
      if (!state.has(next)) { state.set(next, "open"); path.push([next, 0]); }
    }
  }
  return kept;
}

/// More columns than these are too many to see how things hang together.
const DEEPEST = 8;

/// Each node one column behind the last of its callers; where that becomes too long a row, behind the first of them.
function ranked(names, into) {
  const long = behindLast(names, into);
  return long.length > DEEPEST ? behindFirst(names, into) : long;
}

function behindFirst(names, into) {
  const out = new Map(names.map((n) => [n, []]));
  for (const [name, callers] of into) callers.forEach((caller) => out.get(caller).push(name));
  const columns = [names.filter((n) => !into.get(n).length)];
  const seen = new Set(columns[0]);
  while (columns.at(-1).length) {
    const next = [...new Set(columns.at(-1).flatMap((n) => out.get(n)))].filter((n) => !seen.has(n)).sort();
    next.forEach((n) => seen.add(n));
    columns.push(next);
  }
  return columns.slice(0, -1);
}

function behindLast(names, into) {
  const rank = new Map();
  const of = (start) => {
    const path = [start];
    while (path.length) {
      const name = path.at(-1);
      const open = into.get(name).find((caller) => !rank.has(caller));
      if (open !== undefined) { path.push(open); continue; }
      rank.set(name, Math.max(-1, ...into.get(name).map((caller) => rank.get(caller))) + 1);
      path.pop();
    }
  };
  names.forEach((n) => rank.has(n) || of(n));
  const columns = [];
  for (const name of names) (columns[rank.get(name)] ??= []).push(name);
  return columns;
}

/// Orders each column by the mean place of its neighbours, a few times to and fro: fewer crossings.
function arrange(columns, pairs) {
  const beside = new Map();
  for (const [a, b] of pairs) {
    if (!beside.has(a)) beside.set(a, []);
    if (!beside.has(b)) beside.set(b, []);
    beside.get(a).push(b);
    beside.get(b).push(a);
  }
  const place = new Map();
  const note = (column) => column.forEach((n, at) => place.set(n, (at + 0.5) / column.length));
  columns.forEach(note);
  for (let round = 0; round < 8; round++) {
    const order = round % 2 ? [...columns].reverse() : columns;
    for (const column of order) {
      const mean = new Map(column.map((n) => {
        const all = beside.get(n) ?? [];
        return [n, all.length ? all.reduce((sum, m) => sum + place.get(m), 0) / all.length : place.get(n)];
      }));
      column.sort((a, b) => mean.get(a) - mean.get(b) || (a < b ? -1 : 1));
      note(column);
    }
  }
  return columns.filter((column) => column.length);
}

/// Most boxes above each other.
const TALLEST = 16;

/// Rows, in the middle of the tallest column; tall columns stand in several; those without calls below all others.
function placed(columns, alone) {
  const at = new Map(), split = [];
  for (const column of columns) {
    const parts = Math.ceil(column.length / TALLEST);
    const tall = Math.ceil(column.length / parts);
    for (let part = 0; part < parts; part++) split.push(column.slice(part * tall, (part + 1) * tall));
  }
  const tallest = Math.max(0, ...split.map((column) => column.length));
  split.forEach((column, x) => column.forEach((n, y) => at.set(n, { column: x, row: y + (tallest - column.length) / 2 })));
  const wide = Math.max(split.length, Math.min(alone.length, 5));
  alone.forEach((n, i) => at.set(n, { column: i % wide, row: tallest + Math.floor(i / wide) + (tallest ? 0.4 : 0) }));
  const rows = tallest + (alone.length ? Math.ceil(alone.length / wide) + 0.4 : 0);
  return { at, columns: wide, rows };
}
