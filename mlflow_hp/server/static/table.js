// The table of runs: columns, order, selection by mouse and keyboard.

import { duration, inWords, loaded, passes, runs, told } from "./data.js";
import { keep, state } from "./state.js";

const PARAMS_AT_FIRST = 8;
const METRICS_AT_FIRST = 4;
const ROWS_AT_ONCE = 100; // more are made when they come into sight

const table = document.getElementById("table");
const head = table.tHead.rows[0];
const body = table.tBodies[0];
const scroller = document.getElementById("scroller");

export const selected = new Set(); // ids, in the order of their selection
let shown = []; // runs that pass the filters, in order
let columns = [];
let active = null; // id of the run that the keyboard is at
let anchor = null; // id of the run that a range starts from
let changed = () => {};

export function onSelection(call) {
  changed = call;
}

export const shownRuns = () => shown;

const STARTED = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short" });

// Every column there could be, by key.
export function allColumns() {
  const found = new Map();
  const add = (key, title, value, text = told) => found.set(key, { key, title, value, text });
  add("name", "Run", (run) => run.name || run.id.slice(0, 8));
  add("author", "Author", (run) => run.author);
  add("kind", "Kind", (run) => run.kind);
  add("experiment", "Experiment", (run) => run.experiment.name);
  add("status", "Status", (run) => run.status.toLowerCase());
  add("started", "Started", (run) => run.started, (value) => STARTED.format(value));
  add("duration", "Duration", duration, inWords);
  const names = (of) => [...new Set([...runs.values()].flatMap((run) => Object.keys(run[of])))].sort();
  for (const name of names("params")) add(`p.${name}`, name, (run) => number(run.params[name]));
  for (const name of names("metrics")) add(`m.${name}`, name, (run) => run.metrics[name]);
  for (const name of names("tags")) add(`t.${name}`, name, (run) => run.tags[name]);
  return found;
}

function number(text) {
  return text !== undefined && text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

// Without a choice: what the runs differ in, and the metrics that most of them have.
export function chosenColumns(all) {
  if (state.c.length) return state.c.filter((key) => all.has(key));
  const every = [...runs.values()];
  const differs = (key) => new Set(every.map((run) => all.get(key).value(run))).size > 1;
  const having = (key) => every.filter((run) => all.get(key).value(run) !== undefined).length;
  const keys = [...all.keys()];
  const params = keys.filter((key) => key.startsWith("p.") && differs(key));
  const metrics = keys.filter((key) => key.startsWith("m.") && !key.includes("/")).sort((a, b) => having(b) - having(a));
  return [
    "name", "author", ...["kind", "experiment"].filter(differs), "status", "started", "duration",
    ...params.sort((a, b) => having(b) - having(a)).slice(0, PARAMS_AT_FIRST),
    ...metrics.slice(0, METRICS_AT_FIRST),
  ];
}

// Filter, sort and draw anew.
export function refresh() {
  const all = allColumns();
  columns = chosenColumns(all).map((key) => all.get(key));
  const words = state.f.split(/\s+/).filter(Boolean);
  const kind = (run) => (state.k === "*" ? true : state.k ? run.kind === state.k : run.kind !== "fold");
  shown = [...runs.values()].filter((run) => (!state.a || run.author === state.a) && kind(run) && passes(run, words, state.t));
  const down = state.o.startsWith("-");
  const column = all.get(state.o.replace(/^-/, "")) ?? all.get("started");
  const keyed = shown.map((run) => [column.value(run), run]);
  keyed.sort(([a], [b]) => compared(a, b, down));
  shown = keyed.map(([, run]) => run);
  if (!shown.some((run) => run.id === active)) active = shown[0]?.id ?? null;
  drawHead(down, column.key);
  const rows = Math.max(ROWS_AT_ONCE, Math.min(body.rows.length, shown.length));
  const top = scroller.scrollTop;
  const focused = body.contains(document.activeElement);
  body.replaceChildren();
  more(rows);
  scroller.scrollTop = top;
  if (focused && active) rowOf(active)?.focus({ preventScroll: true });
  table.setAttribute("aria-rowcount", shown.length + 1);
}

// What is missing comes last, whichever the direction.
function compared(a, b, down) {
  if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  return down ? -order : order;
}

function drawHead(down, sorted) {
  const cells = columns.map((column) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.setAttribute("aria-sort", column.key === sorted ? (down ? "descending" : "ascending") : "none");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = column.title;
    button.addEventListener("click", () => {
      keep({ o: column.key === sorted && !down ? `-${column.key}` : column.key });
      refresh();
      [...head.cells].find((other) => other.textContent === column.title)?.firstChild.focus();
    });
    cell.append(button);
    return cell;
  });
  head.replaceChildren(...cells);
}

function more(count = ROWS_AT_ONCE) {
  const from = body.rows.length;
  const rows = shown.slice(from, from + count).map((run, index) => row(run, from + index));
  body.append(...rows);
}

function row(run, index) {
  const line = document.createElement("tr");
  line.dataset.id = run.id;
  line.setAttribute("aria-rowindex", index + 2);
  for (const column of columns) {
    const cell = document.createElement(column.key === "name" ? "th" : "td");
    const value = column.value(run);
    if (column.key === "name") {
      cell.scope = "row";
      const link = document.createElement("a");
      link.href = `../#/experiments/${run.experiment.id}/runs/${run.id}`;
      link.textContent = "↗";
      link.title = "This run in MLflow";
      link.setAttribute("aria-label", `${value} in MLflow`);
      link.tabIndex = -1;
      const name = document.createElement("span");
      name.textContent = name.title = value;
      cell.append(name, " ", link);
      if (run.parent) cell.classList.add("nested");
    } else {
      cell.textContent = value === undefined ? "" : column.text(value);
      if (typeof value === "number") cell.className = "number";
      if (column.key === "status") cell.dataset.status = run.status;
    }
    line.append(cell);
  }
  mark(line);
  return line;
}

function mark(line) {
  const { id } = line.dataset;
  line.setAttribute("aria-selected", selected.has(id));
  line.tabIndex = id === active ? 0 : -1;
  const link = line.querySelector("a");
  if (link) link.tabIndex = id === active ? 0 : -1;
}

const rowOf = (id) => body.querySelector(`tr[data-id="${id}"]`);

export function markAll() {
  for (const line of body.rows) mark(line);
}

export function select(ids, kept = false) {
  const before = [...selected].join();
  if (!kept) selected.clear();
  for (const id of ids) selected.add(id);
  markAll();
  if ([...selected].join() !== before) changed();
}

function toggle(id) {
  if (!selected.delete(id)) selected.add(id);
  anchor = id;
  markAll();
  changed();
}

function range(id) {
  const from = shown.findIndex((run) => run.id === (anchor ?? active));
  const to = shown.findIndex((run) => run.id === id);
  const ids = shown.slice(Math.min(from, to), Math.max(from, to) + 1).map((run) => run.id);
  select(ids);
}

function go(index, extend) {
  const run = shown[Math.max(0, Math.min(index, shown.length - 1))];
  if (!run) return;
  if (extend && anchor === null) anchor = active;
  while (!rowOf(run.id)) more();
  active = run.id;
  if (extend) range(run.id);
  else anchor = null;
  markAll();
  const line = rowOf(run.id);
  line.focus({ preventScroll: true });
  line.scrollIntoView({ block: "nearest", inline: "nearest" });
}

body.addEventListener("click", (event) => {
  const line = event.target.closest("tr");
  if (!line || event.target.closest("a")) return;
  const { id } = line.dataset;
  const before = active;
  active = id;
  if (event.shiftKey) {
    anchor ??= before;
    range(id);
  } else toggle(id);
  line.focus({ preventScroll: true });
});

body.addEventListener("mousedown", (event) => {
  if (event.shiftKey) event.preventDefault(); // shift selects runs, not text
});

body.addEventListener("keydown", (event) => {
  if (event.target.closest("a")) return;
  const at = shown.findIndex((run) => run.id === active);
  const page = Math.max(1, Math.floor(scroller.clientHeight / (rowOf(active)?.offsetHeight || 30)) - 2);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (event.key in steps && !event.ctrlKey && !event.altKey && !event.metaKey) {
    go(steps[event.key] === Infinity ? shown.length - 1 : at + steps[event.key], event.shiftKey);
  } else if (event.key === " " && event.shiftKey) range(active);
  else if (event.key === " ") toggle(active);
  else if (event.key === "Enter") rowOf(active)?.querySelector("a")?.click();
  else if (event.key === "Escape") select([]);
  else if (event.key === "a" && (event.ctrlKey || event.metaKey)) select(shown.map((run) => run.id));
  else return;
  event.preventDefault();
});

body.addEventListener("focusin", (event) => {
  const line = event.target.closest("tr");
  if (line && line.dataset.id !== active) {
    active = line.dataset.id;
    markAll();
  }
});

scroller.addEventListener("scroll", () => {
  if (body.rows.length < shown.length && scroller.scrollTop + 2 * scroller.clientHeight > scroller.scrollHeight) more();
});

export const metricNames = () => [...new Set([...loaded.values()].flatMap((known) => known.metric_names))].sort();
