// The dashboard: asks every two seconds and shows what came. Nothing is fetched from anywhere else.
import { Graph } from "./graph.js";
import { tables } from "./tables.js";
import { Tap } from "./tap.js";
import { put, element, rate, percent, time } from "./show.js";

const VIEWS = ["graph", "services", "routes", "splits", "security", "proxies", "tap"];
const EVERY = 2000;
const $ = (id) => document.getElementById(id);

const app = { key: "", filter: "", namespace: "", window: "10", paused: false, view: "graph", last: null, asked: 0 };
const graph = new Graph($("graph"), $("details"), (workload) => { tap.of(workload); show("tap"); });
const views = tables($);
const tap = new Tap($("tap"), $("tap-table"), $("tap-state"), ask);

/// A GET of the API.
export function ask(path, options = {}) {
  return fetch(`/api/v1/${path}`, { cache: "no-store", headers: { authorization: `Bearer ${app.key}` }, ...options });
}

/// The key comes behind the # of the address, which browsers do not send; it does not stay there.
function takeKey() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given) {
    sessionStorage.setItem("key", given);
    history.replaceState(null, "", location.pathname);
  }
  app.key = sessionStorage.getItem("key") ?? "";
}

async function refresh() {
  const asked = ++app.asked;
  try {
    const answer = await ask(`dashboard?window=${app.window}`, { signal: AbortSignal.timeout(8000) });
    if (asked !== app.asked) return;
    if (answer.status === 401) return askForToken();
    if (!answer.ok) throw new Error((await answer.text()).trim());
    app.last = await answer.json();
    graph.remember(app.last);
    const { controllers } = app.last;
    const some = controllers && controllers.answered < controllers.known;
    say(some ? `${controllers.answered} of ${controllers.known} controllers answered` : "live", some);
    draw();
  } catch (error) {
    if (asked === app.asked) say(`no answer: ${error.message}`, true);
  }
}

async function run() {
  for (;;) {
    if (!app.paused && !document.hidden && !$("ask").open) await refresh();
    await new Promise((done) => setTimeout(done, EVERY));
  }
}

function askForToken() {
  say("a token is needed", true);
  if (!$("ask").open) $("ask").showModal();
}

function say(text, bad = false) {
  put($("state"), text);
  $("state").className = bad ? "bad" : "";
}

/// What fits the filter and the namespace.
function fits(...texts) {
  const wanted = app.filter.toLowerCase();
  return texts.some((text) => (text ?? "").toLowerCase().includes(wanted));
}

function visible(all) {
  const here = (...of) => !app.namespace || of.includes(app.namespace);
  const named = (row) => here(row.namespace) && fits(row.name, row.pod, row.account, row.client, row.leaf, row.apex, row.object);
  const end = (node) => node.workload;
  return {
    ...all, every: all.workloads,
    edges: all.edges.filter((e) => here(e.src.namespace, e.dst.namespace) && fits(end(e.src), end(e.dst))),
    workloads: all.workloads.filter(named), services: all.services.filter(named), routes: all.routes.filter(named),
    splits: all.splits.filter(named), authz: all.authz.filter(named), proxies: all.proxies.filter(named),
  };
}

function draw() {
  if (!app.last) return;
  const shown = visible(app.last);
  namespaces(app.last);
  totals(shown);
  // Only what is seen is drawn.
  if (app.view === "graph") graph.update(shown);
  views[app.view]?.(shown);
  put($("legend"), `${shown.workloads.length} workloads, ${shown.edges.length} edges with traffic in the last ${app.last.windowSeconds} s. ` +
    "Solid line and closed lock: mutual TLS; dashes and open lock: not. Width: rate. Dashed box: no proxy.");
}

function namespaces(all) {
  const names = [...new Set(all.workloads.map((w) => w.namespace))].sort();
  const select = $("namespace");
  if ([...select.options].slice(1).map((o) => o.value).join() === names.join()) return;
  select.replaceChildren(new Option("all", ""), ...names.map((n) => new Option(n, n)));
  select.value = names.includes(app.namespace) ? app.namespace : (app.namespace = "");
}

function totals(all) {
  const sum = (of) => all.edges.reduce((total, e) => total + of(e), 0);
  const answered = sum((e) => e.success + e.failure), good = sum((e) => e.success);
  const plain = all.edges.filter((e) => !e.secured).length;
  const stale = all.proxies.filter((p) => p.meshed && !p.synced).length;
  const rows = [
    ["requests", rate(sum((e) => e.rps))],
    ["success", percent(answered ? good / answered : undefined)],
    ["slowest p95", time(Math.max(-1, ...all.edges.map((e) => e.p95 ?? -1)))],
    ["edges without TLS", `${plain} of ${all.edges.length}`],
    ["denied", String(all.authz.reduce((total, row) => total + row.denied, 0))],
    ["proxies synced", `${all.proxies.filter((p) => p.meshed).length - stale} of ${all.proxies.filter((p) => p.meshed).length}`],
  ];
  const host = $("totals");
  if (!host.children.length) host.append(...rows.map(([name]) => element("div", {}, element("dt", {}, name), element("dd", {}))));
  rows.forEach(([, text], at) => put(host.children[at].lastChild, text));
  count("security", all.authz.reduce((total, row) => total + (row.denied > 0 ? 1 : 0), 0));
  count("proxies", stale + all.problems.length);
}

/// A number beside the name of a view: there is something to look at.
function count(view, number) {
  const at = $(`tab-${view}`).lastChild;
  put(at, number ? String(number) : "");
  at.className = number ? "count bad" : "";
}

function show(view, focus = false) {
  app.view = view;
  for (const name of VIEWS) {
    const tab = $(`tab-${name}`), here = name === view;
    tab.setAttribute("aria-selected", String(here));
    tab.tabIndex = here ? 0 : -1;
    $(`view-${name}`).hidden = !here;
    if (here && focus) tab.focus();
  }
  if (app.last) draw();
  history.replaceState(null, "", `#${view}`);
}

function start() {
  const bar = document.querySelector("nav");
  VIEWS.forEach((name) => {
    const tab = element("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `view-${name}` },
      name[0].toUpperCase() + name.slice(1), element("span", {}));
    tab.addEventListener("click", () => show(name));
    bar.append(tab);
  });
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) show(VIEWS[(VIEWS.indexOf(app.view) + step + VIEWS.length) % VIEWS.length], true);
  });
  $("filter").addEventListener("input", () => { app.filter = $("filter").value; draw(); });
  $("namespace").addEventListener("change", () => { app.namespace = $("namespace").value; draw(); });
  $("window").addEventListener("change", () => { app.window = $("window").value; refresh(); });
  $("pause").addEventListener("click", pause);
  $("ask-form").addEventListener("submit", () => {
    app.key = $("token").value.trim();
    sessionStorage.setItem("key", app.key);
    refresh();
  });
  for (const [name, step] of [["nearer", 1], ["farther", -1], ["whole", 0]]) $(name).addEventListener("click", () => graph.look(step));
  document.addEventListener("keydown", keys);
  document.addEventListener("visibilitychange", () => document.hidden || app.paused || refresh());
  takeKey();
  show(VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "graph");
  run();
}

function pause() {
  app.paused = !app.paused;
  $("pause").setAttribute("aria-pressed", String(app.paused));
  say(app.paused ? "paused" : "live");
  if (!app.paused) refresh();
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
  const view = VIEWS[Number(event.key) - 1];
  if (view) show(view, true);
  else if (event.key === "/") { event.preventDefault(); $("filter").focus(); }
  else if (event.key === "p") pause();
  else if (app.view === "graph" && "+-0".includes(event.key)) graph.look({ "+": 1, "-": -1, 0: 0 }[event.key]);
  else if (event.key === "Escape" && app.view === "graph") graph.select("");
  else if (event.key === "?" && !$("help").open) $("help").showModal();
}

start();
