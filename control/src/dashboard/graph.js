// The graph: boxes and lines that are kept from one answer to the next, so that nothing jumps.
import { layers } from "./layout.js";
import { attributes, bytes, drawn, element, percent, put, rate, time, tone } from "./show.js";

const BOX = { width: 178, height: 46 }, GAP = { x: 84, y: 18 }, EDGE = 36;
/// Never drawn smaller than this unless somebody asks: it must stay readable; what does not fit scrolls.
const SMALLEST = 0.72;
/// One step nearer or farther, and how far that goes.
const STEP = 1.25, ZOOM = { least: 0.2, most: 2 };
/// With more edges than this, figures are shown of the selected ones only.
const FEW = 24;
const HISTORY = 150;

const id = (node, end) => (node.workload ? `${node.namespace}/${node.workload}` : `outside (${end})`);
const cubic = (a, b, c, d, t) => a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t ** 2 * (1 - t) + d * t ** 3;
const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const figures = (row) => (row.rps ? `${rate(row.rps)} · ${percent(row.successRate)} · ${time(row.p95)}`
  : row.connections || row.bytesIn || row.bytesOut ? `${bytes((row.bytesIn ?? 0) + (row.bytesOut ?? 0))}` : row.sends ? `sends ${rate(row.sends)}` : "quiet");

export class Graph {
  constructor(svg, details, tap) {
    Object.assign(this, { svg, details, tap, nodes: new Map(), edges: new Map(), history: new Map(), selected: "", shape: "", held: "", zoom: 0 });
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("click", (event) => event.target.closest(".node") || this.select(""));
  }

  update(all) {
    const many = new Set(all.workloads.map((w) => w.namespace)).size > 1;
    const nodes = new Map(all.workloads.map((w) => [`${w.namespace}/${w.name}`, { ...w, many }]));
    const every = new Map(all.every.map((w) => [`${w.namespace}/${w.name}`, w]));
    const edges = new Map();
    for (const e of all.edges) {
      const [from, to] = [id(e.src, "caller"), id(e.dst, "called")];
      for (const [name, node] of [[from, e.src], [to, e.dst]]) {
        if (!nodes.has(name)) nodes.set(name, { name: node.workload || "outside", namespace: node.namespace, rps: 0, ...every.get(name), many });
      }
      edges.set(`${from} ${to}`, { ...e, from, to });
    }
    // An edge that falls silent keeps its place while both its ends are there.
    for (const [key, e] of this.edges) {
      if (!edges.has(key) && nodes.has(e.from) && nodes.has(e.to)) {
        edges.set(key, { ...e, rps: 0, connections: 0, successRate: undefined, p95: undefined, line: undefined });
      }
    }
    for (const e of edges.values()) nodes.get(e.from).sends = (nodes.get(e.from).sends ?? 0) + e.rps;
    this.all = { nodes, edges };
    const shape = [[...nodes.keys()].sort(), [...edges.keys()].sort()].join("|");
    if (shape !== this.shape) { this.shape = shape; this.place(); }
    this.paint();
  }

  /// Takes the rates of one answer in, whatever is shown of it.
  remember({ workloads, edges }) {
    const sends = new Map(), here = new Set();
    for (const e of edges) sends.set(id(e.src, "caller"), (sends.get(id(e.src, "caller")) ?? 0) + e.rps);
    for (const w of workloads) {
      const name = id({ namespace: w.namespace, workload: w.name }), past = this.history.get(name) ?? [];
      past.push(w.rps || sends.get(name) || 0);
      if (past.length > HISTORY) past.shift();
      this.history.set(name, past);
      here.add(name);
    }
    for (const name of this.history.keys()) if (!here.has(name)) this.history.delete(name);
  }

  place() {
    const { nodes, edges } = this.all;
    this.layout = layers([...nodes.keys()], [...edges.values()].map((e) => [e.from, e.to]));
    const step = { x: BOX.width + GAP.x, y: BOX.height + GAP.y };
    const width = Math.max(0, this.layout.columns * step.x - GAP.x) + 2 * EDGE;
    const height = Math.max(0, this.layout.rows * step.y - GAP.y) + 2 * EDGE;
    this.size = { width, height };
    this.scale();
    this.at = new Map([...this.layout.at].map(([n, p]) => [n, { x: EDGE + p.column * step.x, y: EDGE + p.row * step.y, ...p }]));
    document.getElementById("empty").hidden = nodes.size > 0;
  }

  /// As wide as there is room, within what can be read; or as somebody chose.
  scale() {
    const { width, height } = this.size;
    const wide = Math.max(SMALLEST, Math.min(1, (this.svg.parentElement.clientWidth - 2) / width));
    this.shown = this.zoom || wide;
    attributes(this.svg, { width: Math.floor(width * this.shown), height: Math.floor(height * this.shown), viewBox: `0 0 ${width} ${height}` });
  }

  /// One step nearer (1) or farther (-1); 0: all of it at once; again 0: as it was at first.
  look(step) {
    if (!this.size) return;
    const room = this.svg.parentElement, { width, height } = this.size;
    const all = Math.min(1, room.clientWidth / width, room.clientHeight / height);
    this.zoom = step ? this.shown * STEP ** step : this.zoom === all ? 0 : all;
    if (this.zoom) this.zoom = Math.min(ZOOM.most, Math.max(Math.min(ZOOM.least, all), this.zoom));
    this.scale();
    this.nodes.get(this.selected || this.held)?.scrollIntoView({ block: "center", inline: "center" });
  }

  paint() {
    const host = { nodes: this.svg.querySelector("#nodes"), edges: this.svg.querySelector("#edges") };
    keep(host.nodes, this.nodes, this.all.nodes, (name) => this.box(name));
    for (const [name, node] of this.all.nodes) this.paintNode(this.nodes.get(name), name, node);
    for (const key of this.edges.keys()) if (!this.all.edges.has(key)) { this.edges.get(key).line.remove(); this.edges.delete(key); }
    for (const [key, e] of this.all.edges) {
      const line = this.edges.get(key)?.line ?? host.edges.appendChild(newLine());
      this.edges.set(key, { ...e, line });
      this.paintEdge(line, e);
    }
    if (!this.all.nodes.has(this.held)) this.hold([...this.all.nodes.keys()][0] ?? "");
    if (this.selected && !this.all.nodes.has(this.selected)) this.select("");
    this.near();
    this.tell();
  }

  box(name) {
    const g = drawn("g", { class: "node", role: "button", tabindex: -1 },
      drawn("title"), drawn("rect", { class: "box", width: BOX.width, height: BOX.height, rx: 6 }),
      drawn("rect", { class: "bar", x: 0, y: 0, width: 5, height: BOX.height, rx: 2 }),
      drawn("text", { class: "name", x: 13, y: 18 }), drawn("text", { class: "figures", x: 13, y: 36 }),
      drawn("text", { class: "namespace", x: BOX.width - 8, y: 17 }));
    g.dataset.name = name;
    g.addEventListener("click", () => { this.hold(name); this.select(this.selected === name ? "" : name); });
    return g;
  }

  paintNode(g, name, node) {
    const { x, y } = this.at.get(name);
    const bare = !node.meshed || node.meshed[0] === 0;
    const [title, , , label, text, namespace] = g.children;
    const own = node.name.replace(/^deploy\//, "");
    attributes(g, { transform: `translate(${x} ${y})`, "aria-pressed": String(this.selected === name),
      "aria-label": `${name}, ${figures(node)}${bare ? ", no proxy" : ""}`,
      class: `node ${tone(node)}${bare ? " bare" : ""}${g.classList.contains("near") ? " near" : ""}` });
    put(title, `${name}\n${figures(node)}`);
    put(label, short(own, node.many ? 15 : 23));
    put(text, figures(node));
    put(namespace, node.many ? short(node.namespace, 9) : "");
  }

  paintEdge(g, e) {
    const from = this.at.get(e.from), to = this.at.get(e.to);
    const [path, lock, text, title] = g.children;
    const back = to.column <= from.column;
    const a = { x: from.x + BOX.width, y: from.y + BOX.height / 2 };
    const b = { x: to.x, y: to.y + BOX.height / 2 };
    // Calls against the direction of reading bow out of the way.
    const bend = back ? 70 : Math.max(36, (b.x - a.x) / 2);
    const lift = back ? (a.y <= b.y ? -1 : 1) * (BOX.height + 8) * (e.from === e.to ? -0.9 : 0.6) : 0;
    const d = `M${a.x} ${a.y} C${a.x + bend} ${a.y + lift} ${b.x - bend} ${b.y + lift} ${b.x} ${b.y}`;
    attributes(path, { d, "stroke-width": (1 + Math.min(4, Math.log10(1 + (e.rps ?? 0)) * 1.4)).toFixed(1) });
    const quiet = this.all.edges.size > FEW ? " quiet" : "";
    const near = g.classList.contains("near") ? " near" : "";
    attributes(g, { class: `edge ${tone(e)}${e.secured ? "" : " plain"}${quiet}${near}` });
    // Between the first two columns: further on, boxes would hide it.
    const wanted = a.x + (back ? 0 : GAP.x / 2), turn = { x1: a.x + bend, x2: b.x - bend, y1: a.y + lift, y2: b.y + lift };
    let t = 0.5;
    if (!back) for (t = 0.05; t < 0.5 && cubic(a.x, turn.x1, turn.x2, b.x, t) < wanted;) t += 0.05;
    const middle = { x: cubic(a.x, turn.x1, turn.x2, b.x, t), y: cubic(a.y, turn.y1, turn.y2, b.y, t) };
    const label = e.rps ? rate(e.rps) : "";
    attributes(text, { x: middle.x + 7, y: middle.y - 5 });
    attributes(lock, { href: e.secured ? "#locked" : "#open", x: middle.x - 8 - label.length * 3.1, y: middle.y - 15, width: 12, height: 12 });
    attributes(g, { "data-name": `${e.from} ${e.to}` });
    put(text, label);
    put(title, `${e.from} → ${e.to}\n${figures(e)}\n${e.secured ? "mutual TLS" : `no mutual TLS: ${e.noTlsReason}`}`);
  }

  select(name) {
    // Who was reading what is told goes back to the box it was told of.
    if (!name && this.details.contains(document.activeElement)) this.hold(this.selected, true);
    this.selected = name;
    for (const [key, g] of this.nodes) g.setAttribute("aria-pressed", String(key === name));
    this.near();
    this.tell();
    this.nodes.get(name)?.scrollIntoView({ block: "nearest", inline: "nearest" }); // what is told of it took room away
  }

  /// Marks the selected box, its neighbours and the lines between.
  near() {
    const close = new Set([this.selected]);
    this.svg.classList.toggle("some", this.selected !== "");
    for (const e of this.edges.values()) {
      const near = this.selected !== "" && (e.from === this.selected || e.to === this.selected);
      e.line.classList.toggle("near", near);
      if (near) close.add(e.from).add(e.to);
    }
    for (const [name, g] of this.nodes) g.classList.toggle("near", close.has(name));
  }

  /// The selected one, in words.
  tell() {
    const node = this.all?.nodes.get(this.selected);
    this.details.hidden = !node;
    if (!node) return;
    const lists = [["Called by", (e) => e.to === this.selected, (e) => e.from], ["Calls", (e) => e.from === this.selected, (e) => e.to]];
    const parts = lists.flatMap(([title, mine, other]) => {
      const items = [...this.edges.values()].filter(mine).map((e) => element("li", {}, element("b", {}, other(e)),
        element("div", { class: "figures" }, `${figures(e)} · ${bytes((e.bytesIn ?? 0) + (e.bytesOut ?? 0))}`),
        element("div", { class: e.secured ? "figures" : "figures edge-text bad" }, e.secured ? "mutual TLS" : `no mutual TLS: ${e.noTlsReason}`)));
      return [element("h2", {}, title), items.length ? element("ul", {}, ...items) : element("p", { class: "figures" }, "nobody")];
    });
    const pods = node.meshed ? `${node.meshed[0]} of ${node.meshed[1]} pods with a proxy` : "";
    const text = JSON.stringify([this.selected, figures(node), pods, parts.map((p) => p.textContent)]);
    if (text !== this.told) {
      this.told = text;
      // The buttons stay: whoever has come to one with the keyboard stays there.
      if (this.titled !== this.selected || !this.details.firstChild) this.details.replaceChildren(this.title(node), element("div"));
      this.titled = this.selected;
      this.details.lastChild.replaceChildren(element("p", { class: "figures" }, `${figures(node)} · p99 ${time(node.p99)}`),
        spark(this.history.get(this.selected)), element("p", { class: "figures" }, pods), ...parts);
    }
  }

  title(node) {
    const tap = element("button", { type: "button" }, "Tap");
    tap.addEventListener("click", () => this.tap(node));
    const close = element("button", { type: "button", "aria-label": "Close" }, "×");
    close.addEventListener("click", () => this.select(""));
    return element("header", {}, element("h2", {}, this.selected), element("span", {}, tap, " ", close));
  }

  hold(name, focus = false) {
    this.nodes.get(this.held)?.setAttribute("tabindex", "-1");
    this.held = name;
    const g = this.nodes.get(name);
    g?.setAttribute("tabindex", "0");
    if (focus) { g?.focus({ preventScroll: true }); g?.scrollIntoView({ block: "nearest", inline: "nearest" }); }
  }

  key(event) {
    if (event.key === "Escape") return this.select("");
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); return this.select(this.selected === this.held ? "" : this.held); }
    const here = this.at?.get(this.held);
    const aside = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!here || !aside) return;
    event.preventDefault();
    const [dx, dy] = aside;
    const ahead = [...this.at].filter(([, p]) => (dx ? Math.sign(p.column - here.column) === dx : p.column === here.column && Math.sign(p.row - here.row) === dy));
    const far = ([, p]) => Math.abs(p.column - here.column) * 1000 + Math.abs(p.row - here.row);
    const next = ahead.sort((a, b) => far(a) - far(b))[0];
    if (next) this.hold(next[0], true);
  }
}

function keep(host, have, want, make) {
  for (const [name, g] of have) if (!want.has(name)) { g.remove(); have.delete(name); }
  for (const name of [...want.keys()].sort()) if (!have.has(name)) have.set(name, host.appendChild(make(name)));
}

function newLine() {
  return drawn("g", { class: "edge" }, drawn("path"), drawn("use"), drawn("text"), drawn("title"));
}

function spark(past = []) {
  const most = Math.max(...past, 1);
  const points = past.map((rps, at) => `${HISTORY - past.length + at},${(40 - (rps / most) * 38).toFixed(1)}`);
  return drawn("svg", { viewBox: `0 0 ${HISTORY} 42`, preserveAspectRatio: "none", role: "img", "aria-label": `rate since this page was opened, at most ${rate(most)}` },
    drawn("polyline", { points: points.join(" ") }));
}
