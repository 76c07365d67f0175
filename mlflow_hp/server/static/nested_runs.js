// Nested runs of a search, a sweep or an improvement, live: what is planned, running, done and failed.

import { duration, format, formatDuration, request } from "./data.js";
import { FoldCurves } from "./fold_curves.js";

const MAX_ROWS = 200;
const SCORES = [/^mean_score$/, /^mean_test_/, /^best\/val_loss$/, /^val_loss$/, /^loss$/];

// A number in five digits, with all of them on pointing at it.
function valueCell(cell, text) {
  const isNumber = text.trim() !== "" && Number.isFinite(Number(text));
  cell.textContent = isNumber ? format(Number(text)) : text;
  if (cell.textContent !== text) cell.title = text;
}

export class RunTable {
  constructor(root) {
    this.root = root;
    this.table = document.createElement("div");
    const curves = document.createElement("div");
    root.replaceChildren(this.table, curves);
    this.curves = new FoldCurves(curves);
  }

  async update(answer, ids, statuses) {
    const columns = ids.length ? await request("runs", { experiment: answer.run.experiment_id, runs: ids.slice(0, 100).join(",") }) : null;
    const heading = Object.assign(document.createElement("h2"), { textContent: { search: "Candidates", sweep: "Combinations", improvement: "Trainings" }[answer.run.kind] ?? "Nested runs" });
    const parts = [heading, this.counts(answer, statuses)];
    if (columns) parts.push(this.rows(columns, answer));
    this.table.replaceChildren(...parts);
    if (columns) await this.curves.update(this.ranked, columns.metric_names);
  }

  counts(answer, statuses) {
    const { planned, running, done, failed } = answer.counts;
    const words = [];
    const finished = done ?? statuses.FINISHED ?? 0;
    if (planned) words.push(`${planned} planned`);
    words.push(`${running ?? statuses.RUNNING ?? 0} running`, `${finished} done`, `${failed ?? statuses.FAILED ?? 0} failed`);
    const ended = finished + (failed ?? statuses.FAILED ?? 0);
    if (answer.run.status === "RUNNING" && planned && ended && ended < planned) {
      const seconds = (Date.now() - answer.run.started) / 1000;
      words.push(`about ${formatDuration(Math.round((seconds / ended) * (planned - ended)))} left`);
    }
    return Object.assign(document.createElement("p"), { textContent: words.join(", ") });
  }

  rows({ runs, params, metrics }, answer) {
    const varied = Object.entries(params).filter(([, values]) => new Set(values.filter((value) => value !== null)).size > 1).map(([name]) => name);
    const names = Object.keys(metrics);
    const score = SCORES.map((pattern) => names.find((name) => pattern.test(name))).find(Boolean);
    const head = ["run", "status", ...varied, ...(score ? [score] : []), "time"];
    const order = runs.id.map((_, index) => index);
    if (score) {
      const falls = /loss|error/.test(score);
      const value = (index) => metrics[score][index] ?? (falls ? Infinity : -Infinity);
      order.sort((a, b) => (falls ? value(a) - value(b) : value(b) - value(a)) || 0);
    }
    this.ranked = order.map((index) => ({ id: runs.id[index], name: runs.name[index] || runs.id[index] }));
    const table = document.createElement("table");
    table.createCaption().textContent = `${runs.id.length} nested runs${score ? `, the best ${score} first` : ""}`;
    const top = table.createTHead().insertRow();
    for (const name of head) top.append(Object.assign(document.createElement("th"), { scope: "col", textContent: name }));
    const body = table.createTBody();
    for (const index of order.slice(0, MAX_ROWS)) {
      const row = body.insertRow();
      const link = Object.assign(document.createElement("a"), { textContent: runs.name[index] || runs.id[index], href: runs.id[index] });
      row.insertCell().append(link, answer.best?.id === runs.id[index] ? " ★" : "");
      const status = row.insertCell();
      status.textContent = runs.status[index].toLowerCase();
      status.dataset.status = runs.status[index];
      for (const name of varied) valueCell(row.insertCell(), params[name][index] ?? "");
      if (score) Object.assign(row.insertCell(), { textContent: format(metrics[score][index] ?? undefined), className: "number" });
      row.insertCell().textContent = formatDuration(duration({ ended: runs.ended[index], started: runs.started[index] }));
    }
    const box = document.createElement("div");
    box.className = "wide";
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Nested runs");
    box.append(table);
    return box;
  }
}
