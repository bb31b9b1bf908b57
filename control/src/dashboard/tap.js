// Single requests as they pass.
import { Table } from "./tables.js";
import { put, time } from "./show.js";

/// Requests shown, and asked for in a second of each proxy.
const KEPT = 200, RATE = 20;

export class Tap {
  constructor(form, host, state, ask) {
    Object.assign(this, { form, state, ask, rows: [], states: new Map(), lost: 0, serial: 0, stop: null });
    this.table = new Table(host, "Requests, the latest first", [
      { name: "Time", of: (r) => -r.serial, text: (r) => r.at },
      { name: "Pod", text: (r) => r.pod }, { name: "Way", text: (r) => (r.direction === "inbound" ? "←" : "→") },
      { name: "Other end", text: (r) => r.peer || "unknown" }, { name: "Request", text: (r) => `${r.method} ${r.path}` },
      { name: "Host", text: (r) => r.authority }, { name: "Route", text: (r) => r.route.split(" ").slice(1).join(" ") },
      { name: "Status", number: true, of: (r) => r.status, text: (r) => (r.grpcStatus === undefined ? String(r.status) : `${r.status} grpc ${r.grpcStatus}`),
        tone: (r) => (r.error || r.status >= 500 || r.grpcStatus ? "bad" : r.status >= 400 ? "warn" : "") },
      { name: "Took", number: true, of: (r) => r.durationUs, text: (r) => time(r.durationUs / 1e6) },
      { name: "TLS", text: (r) => (r.mutualTls ? "yes" : "no"), tone: (r) => (r.mutualTls ? "" : "warn") },
      { name: "Error", text: (r) => r.error },
    ], (r) => r.serial, "Start, and requests appear here.");
    this.table.update([]);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.stop) this.stop.abort();
      else this.start();
    });
  }

  /// Makes ready to look at this workload.
  of(workload) {
    this.stop?.abort();
    this.form.elements.resource.value = workload.name.includes("/") ? workload.name : `pod/${workload.name}`;
    this.namespace = workload.namespace;
    this.form.querySelector("button").focus();
  }

  query() {
    const asked = new URLSearchParams({ "max-rps": RATE });
    for (const name of ["resource", "direction", "method", "path", "status"]) {
      const value = this.form.elements[name].value.trim();
      if (value) asked.set(name, value);
    }
    if (this.form.elements.denied.checked) asked.set("denied", "");
    const namespace = document.getElementById("namespace").value || (asked.has("resource") && this.namespace);
    if (namespace) asked.set("namespace", namespace);
    return asked.toString().replaceAll("+", "%20");
  }

  async start() {
    const stop = (this.stop = new AbortController());
    this.rows = [];
    this.states.clear();
    this.lost = 0;
    put(this.form.querySelector("button"), "Stop");
    let end = "stopped";
    try {
      const answer = await this.ask(`tap?${this.query()}`, { signal: stop.signal });
      if (!answer.ok) throw new Error((await answer.text()).trim());
      await this.read(answer.body.pipeThrough(new TextDecoderStream()).getReader());
      end = "ended by the controller";
    } catch (error) {
      if (!stop.signal.aborted) end = error.message;
    }
    if (this.stop === stop) {
      this.stop = null;
      put(this.form.querySelector("button"), "Start");
      put(this.state, end);
    }
  }

  async read(reader) {
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line) this.take(JSON.parse(line));
      this.table.update(this.rows);
    }
  }

  take(line) {
    if (line.event === "connected") {
      const more = [[line.withoutProxy, "without a proxy"], [line.notConnected, "not connected"]].filter(([pods]) => pods.length);
      put(this.state, [`looking at ${line.pods.length} pods`, ...more.map(([pods, why]) => `${pods.length} ${why}`)].join(", "));
    } else if (line.event === "state") {
      this.states.set(line.pod, line);
      const sum = (of) => [...this.states.values()].reduce((total, at) => total + of(at), 0);
      put(this.state, `${sum((s) => s.seen)} seen, ${sum((s) => s.matched)} fit, ${sum((s) => s.skipped) + line.lost} left out`);
    } else if (line.event === "ended") {
      this.rows.unshift({ ...line, serial: ++this.serial, at: new Date().toLocaleTimeString([], { hour12: false }) });
      this.rows.length = Math.min(this.rows.length, KEPT);
    }
  }
}
