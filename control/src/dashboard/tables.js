// Tables that stay where they are while their numbers change: sorted by any column, rows kept by key.
import { attributes, bytes, element, percent, put, rate, span, time, tone } from "./show.js";

export class Table {
  /// columns: {name, of: row => value to sort by, text: row => what is shown, number, tone: row => class}
  constructor(host, caption, columns, key, none) {
    Object.assign(this, { columns, key, rows: [], known: new Map(), by: 0, down: false });
    this.body = element("tbody");
    this.head = columns.map((column, at) => {
      const button = element("button", { type: "button" }, column.name);
      button.addEventListener("click", () => this.sort(at));
      return element("th", { scope: "col", class: column.number ? "number" : undefined }, button);
    });
    this.none = element("tr", {}, element("td", { colspan: columns.length, class: "none" }, none));
    const table = element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...this.head)), this.body);
    host.append(element("div", { class: "scroll" }, table));
    this.mark();
  }

  sort(at) {
    this.down = this.by === at ? !this.down : Boolean(this.columns[at].number);
    this.by = at;
    this.mark();
    this.update(this.rows);
  }

  mark() {
    this.head.forEach((th, at) => attributes(th, { "aria-sort": at === this.by ? (this.down ? "descending" : "ascending") : undefined }));
  }

  update(rows) {
    this.rows = rows;
    const of = this.columns[this.by].of ?? this.columns[this.by].text;
    const value = (row) => of(row) ?? -Infinity;
    const order = (a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (this.down ? -1 : 1);
    const sorted = rows.map((row) => [this.key(row), row]).sort(([k, a], [l, b]) => order(a, b) || (k < l ? -1 : 1));
    const wanted = sorted.map(([key, row]) => this.row(key, row));
    if (!wanted.length) wanted.push(this.none);
    if (wanted.length !== this.body.children.length || wanted.some((tr, at) => tr !== this.body.children[at])) {
      this.body.replaceChildren(...wanted);
    }
    const keys = new Set(sorted.map(([key]) => key));
    for (const key of this.known.keys()) if (!keys.has(key)) this.known.delete(key);
  }

  row(key, row) {
    let tr = this.known.get(key);
    if (!tr) {
      tr = element("tr", {}, ...this.columns.map(() => element("td")));
      this.known.set(key, tr);
    }
    this.columns.forEach((column, at) => {
      const td = tr.children[at];
      attributes(td, { class: [column.number && "number", column.tone?.(row)].filter(Boolean).join(" ") || undefined });
      if (column.show) column.show(td, row);
      else put(td, column.text(row));
    });
    return tr;
  }
}

const name = (title = "Name") => ({ name: title, text: (row) => row.name });
const namespace = { name: "Namespace", text: (row) => row.namespace };
/// The figures every table has.
const figures = [
  { name: "Rate", number: true, of: (r) => r.rps, text: (r) => rate(r.rps) },
  { name: "Success", number: true, of: (r) => r.successRate, text: (r) => percent(r.successRate), tone: (r) => (r.successRate === undefined ? "" : tone(r)) },
  { name: "p50", number: true, of: (r) => r.p50, text: (r) => time(r.p50) },
  { name: "p95", number: true, of: (r) => r.p95, text: (r) => time(r.p95) },
  { name: "p99", number: true, of: (r) => r.p99, text: (r) => time(r.p99) },
];
const traffic = { name: "In / out", number: true, of: (r) => r.bytesIn + r.bytesOut, text: (r) => `${bytes(r.bytesIn)} / ${bytes(r.bytesOut)}` };
const pods = { name: "Meshed", number: true, of: (r) => r.meshed?.[0] ?? 0, text: (r) => (r.meshed ? `${r.meshed[0]}/${r.meshed[1]}` : "–"),
  tone: (r) => (r.meshed && r.meshed[0] < r.meshed[1] ? "warn" : "") };
const named = (row) => `${row.namespace}/${row.name}`;
const end = (node) => (node.workload ? `${node.namespace}/${node.workload}` : "outside");

/// All tables; returns what fills those of a view: the others are not seen.
export function tables($) {
  const services = new Table($("view-services"), "Services, as callers saw them", [name(), namespace, pods, ...figures, traffic], named, "No Services.");
  const workloads = new Table($("view-services"), "Workloads, as they answered", [name(), namespace, pods, ...figures, traffic], named, "No workloads.");
  const edges = new Table($("view-services"), "Calls", [
    { name: "From", text: (e) => end(e.src) }, { name: "To", text: (e) => end(e.dst) },
    { name: "Mutual TLS", text: (e) => (e.secured ? "yes" : `no: ${e.noTlsReason ?? "unknown"}`), tone: (e) => (e.secured ? "" : "warn") },
    ...figures], (e) => `${end(e.src)} ${end(e.dst)}`, "No traffic in this window.");
  const routes = new Table($("view-routes"), "Routes, as workloads answered them", [name("Route"), namespace, ...figures,
    { name: "Denied", number: true, of: (r) => r.denied, text: (r) => String(r.denied), tone: (r) => (r.denied ? "bad" : "") }], named, "No requests in this window.");
  const splits = splitTable($("view-splits"));
  const denials = new Table($("view-security"), "Denied in this window", [
    { name: "To", text: (r) => `${r.namespace}/${r.account}` }, { name: "From", text: (r) => r.client },
    { name: "Why", text: (r) => Object.entries(r.deniedBy).map(([why, n]) => `${why.replaceAll("_", " ")} (${n})`).join(", ") },
    { name: "Denied", number: true, of: (r) => r.denied, text: (r) => String(r.denied), tone: () => "bad" },
  ], (r) => `${r.namespace} ${r.account} ${r.client}`, "Nothing was denied.");
  const allowed = new Table($("view-security"), "Who may call", [
    { name: "To", text: (r) => `${r.namespace}/${r.account}` }, { name: "From", text: (r) => r.client }, { name: "By", text: (r) => r.object },
    { name: "Routes", text: (r) => r.routes.join(", ") || "any traffic" }, ...figures.slice(0, 2),
  ], (r) => `${r.namespace} ${r.account} ${r.client} ${r.object}`, "No permissions.");
  const proxies = proxyTable($("view-proxies"));
  const problems = new Table($("view-proxies"), "Problems of the objects", [
    { name: "Severity", text: (p) => p.severity, tone: (p) => (p.severity === "error" ? "bad" : "") },
    { name: "Object", text: (p) => [p.object, p.field].filter(Boolean).join(" ") || p.file }, { name: "Problem", text: (p) => p.message },
    { name: "Where", text: (p) => (p.line ? `${p.file}:${p.line}` : p.file) },
  ], (p) => `${p.file} ${p.line} ${p.object} ${p.field} ${p.message}`, "None.");
  return {
    services(all) {
      services.update(all.services);
      workloads.update(all.workloads);
      edges.update(all.edges);
    },
    routes: (all) => routes.update(all.routes),
    splits: (all) => splits.update(all.splits),
    security(all) {
      denials.update(all.authz.filter((row) => row.denied > 0));
      allowed.update(all.authz.filter((row) => row.object));
    },
    proxies(all) {
      proxies.update(all.proxies);
      problems.update(all.problems);
    },
  };
}

function splitTable(host) {
  const bar = (of) => (td, row) => {
    if (!td.firstChild) td.append(element("meter", { min: 0, max: 1 }), " ", element("span"));
    const share = of(row);
    td.firstChild.value = share ?? 0;
    put(td.lastChild, percent(share));
  };
  return new Table(host, "Traffic splits: what is wanted, what happens", [
    name("Split"), namespace, { name: "Service", text: (r) => r.apex }, { name: "Backend", text: (r) => r.leaf },
    { name: "Weight", number: true, of: (r) => r.weight, text: (r) => String(r.weight) },
    { name: "Wanted", of: (r) => r.wanted, show: bar((r) => r.wanted) }, { name: "Observed", of: (r) => r.observed, show: bar((r) => r.observed) },
    ...figures], (r) => `${named(r)} ${r.leaf}`, "No splits.");
}

function proxyTable(host) {
  const left = (p) => (p.certificateExpiry ? p.certificateExpiry - Date.now() / 1000 : undefined);
  const state = (p) => (!p.meshed ? "no proxy" : p.version === undefined ? "not connected" : p.synced ? "synced" : `stale for ${span(p.staleSeconds)}`);
  return new Table(host, "Pods and their proxies", [
    { name: "Pod", text: (p) => p.pod }, namespace, { name: "Workload", text: (p) => p.name },
    { name: "Ready", text: (p) => (p.ready ? "yes" : "no"), tone: (p) => (p.ready ? "" : "warn") },
    { name: "Proxy", text: state, tone: (p) => (p.meshed && !p.synced ? "bad" : p.meshed ? "" : "warn") },
    { name: "Certificate", number: true, of: left, text: (p) => { const s = left(p); return s === undefined ? "–" : s <= 0 ? "expired" : `${span(s)} left`; },
      tone: (p) => { const s = left(p); return s === undefined ? "" : s <= 0 ? "bad" : s < 3600 ? "warn" : ""; } },
    { name: "Access", text: (p) => p.access }, { name: "Zone", text: (p) => p.zone || "–" },
    { name: "Last report", number: true, of: (p) => p.reportedSecondsAgo, text: (p) => (p.reportedSecondsAgo === undefined ? "–" : `${span(p.reportedSecondsAgo)} ago`) },
    { name: "Version", text: (p) => p.version ?? "–" }, { name: "Refused last", text: (p) => p.lastNack ?? "" },
  ], (p) => `${p.namespace}/${p.pod}`, "No pods.");
}
