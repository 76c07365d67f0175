// Table of runs: columns, order, selection by mouse and keyboard.

import { duration, format, formatDuration, loaded, matches, runs } from "./data.js";
import { updateState, state } from "./state.js";
import { fold, isFolded, rowsOf } from "./tree.js";

const DEFAULT_PARAMS = 8;
const DEFAULT_METRICS = 4;
const CURVES = /^(weights|units|system)\//; // metrics of which a run's latest values are not loaded
const ROWS_AT_ONCE = 100; // the next are added on scrolling

const table = document.getElementById("table");
const head = table.tHead.rows[0];
const body = table.tBodies[0];
const scroller = document.getElementById("scroller");

export const selected = new Set(); // ids, in the order of their selection
let rows = []; // runs that match the filters and whose parents are not folded, in order: {run, level, children}
let shown = []; // these runs
let columns = [];
let active = null; // id of the run with keyboard focus
let anchor = null; // id of the run where a range selection starts
let selectionCallback = () => {};

export function onSelection(callback) {
  selectionCallback = callback;
}

export const shownRuns = () => shown;

const STARTED = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short" });

// All available columns, by key.
export function allColumns() {
  const all = new Map();
  const add = (key, title, value, text = format) => all.set(key, { key, title, value, text });
  add("name", "Run", (run) => run.name || run.id.slice(0, 8));
  add("author", "Author", (run) => run.author);
  add("kind", "Kind", (run) => run.kind);
  add("experiment", "Experiment", (run) => run.experiment.name);
  add("status", "Status", (run) => run.status.toLowerCase());
  add("started", "Started", (run) => run.started, (value) => STARTED.format(value));
  add("duration", "Duration", duration, formatDuration);
  const names = (kind) => [...new Set([...runs.values()].flatMap((run) => Object.keys(run[kind])))].sort();
  for (const name of names("params")) add(`p.${name}`, name, (run) => number(run.params[name]));
  for (const name of names("metrics")) add(`m.${name}`, name, (run) => run.metrics[name]);
  for (const name of names("tags")) add(`t.${name}`, name, (run) => run.tags[name]);
  return all;
}

function number(text) {
  return text !== undefined && text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

// Columns that the user chose; by default those in which the runs differ, and the most common metrics.
export function chosenColumns(all) {
  if (state.c.length) return state.c.filter((key) => all.has(key));
  const allRuns = [...runs.values()];
  const differs = (key) => new Set(allRuns.map((run) => all.get(key).value(run))).size > 1;
  const nRuns = (key) => allRuns.filter((run) => all.get(key).value(run) !== undefined).length;
  const keys = [...all.keys()];
  const withParams = allRuns.filter((run) => Object.keys(run.params).length); // a search's or sweep's parent has none
  const params = keys.filter((key) => key.startsWith("p.") && new Set(withParams.map((run) => all.get(key).value(run))).size > 1);
  // those of several values first: what only a sweep, or only its runs have, tells the runs less apart
  const several = (key) => Number(new Set(withParams.map((run) => all.get(key).value(run)).filter((value) => value !== undefined)).size > 1);
  const metrics = keys.filter((key) => key.startsWith("m.") && (!key.includes("/") || key.startsWith("m.best/"))).sort((a, b) => nRuns(b) - nRuns(a));
  return [
    "name", "author", ...["kind", "experiment"].filter(differs), "status", "started", "duration",
    ...params.sort((a, b) => several(b) - several(a) || nRuns(b) - nRuns(a)).slice(0, DEFAULT_PARAMS),
    ...metrics.slice(0, DEFAULT_METRICS),
  ];
}

// Filter, sort and redraw.
export function refresh() {
  const all = allColumns();
  columns = chosenColumns(all).map((key) => all.get(key));
  const words = state.f.split(/\s+/).filter(Boolean);
  const kind = (run) => (state.k === "*" ? true : state.k ? run.kind === state.k : run.kind !== "fold");
  const matching = [...runs.values()].filter((run) => (!state.a || run.author === state.a) && kind(run) && matches(run, words, state.t));
  const descending = state.o.startsWith("-");
  const column = all.get(state.o.replace(/^-/, "")) ?? all.get("started");
  const keyed = matching.map((run) => [column.value(run), run]);
  keyed.sort(([a], [b]) => order(a, b, descending));
  rows = rowsOf(keyed.map(([, run]) => run));
  shown = rows.map((row) => row.run);
  if (!shown.some((run) => run.id === active)) active = shown[0]?.id ?? null;
  drawHead(descending, column.key);
  const count = Math.max(ROWS_AT_ONCE, Math.min(body.rows.length, shown.length));
  const top = scroller.scrollTop;
  const focused = body.contains(document.activeElement);
  body.replaceChildren();
  addRows(count);
  scroller.scrollTop = top;
  if (focused && active) rowOf(active)?.focus({ preventScroll: true });
  table.setAttribute("aria-rowcount", shown.length + 1);
}

// Missing values come last in both directions.
function order(a, b, descending) {
  if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
  const ascending = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  return descending ? -ascending : ascending;
}

function drawHead(descending, sortedKey) {
  const cells = columns.map((column) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.setAttribute("aria-sort", column.key === sortedKey ? (descending ? "descending" : "ascending") : "none");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = column.title;
    button.addEventListener("click", () => {
      updateState({ o: column.key === sortedKey && !descending ? `-${column.key}` : column.key });
      refresh();
      [...head.cells].find((other) => other.textContent === column.title)?.firstChild.focus();
    });
    cell.append(button);
    return cell;
  });
  head.replaceChildren(...cells);
}

function addRows(count = ROWS_AT_ONCE) {
  const from = body.rows.length;
  body.append(...rows.slice(from, from + count).map((row, index) => line(row, from + index)));
}

function line({ run, level, children }, index) {
  const line = document.createElement("tr");
  line.dataset.id = run.id;
  line.setAttribute("aria-rowindex", index + 2);
  line.setAttribute("aria-level", level);
  if (children) line.setAttribute("aria-expanded", !isFolded(run.id));
  for (const column of columns) {
    const cell = document.createElement(column.key === "name" ? "th" : "td");
    const value = column.value(run);
    if (column.key === "name") {
      cell.scope = "row";
      const link = document.createElement("a");
      link.href = `../#/experiments/${run.experiment.id}/runs/${run.id}?workflowType=machine_learning`;
      link.textContent = "↗";
      link.title = "This run in MLflow";
      link.setAttribute("aria-label", `${value} in MLflow`);
      link.tabIndex = -1;
      const name = document.createElement("span");
      name.textContent = name.title = value;
      cell.append(name, " ", link);
      if (level > 1) cell.style.setProperty("--level", level - 1);
      if (children) cell.prepend(twisty(run, children));
      const own = document.createElement("a");
      own.href = `run/${run.id}`;
      own.textContent = "▸";
      own.title = "This run step by step";
      own.setAttribute("aria-label", `${value} step by step`);
      own.tabIndex = -1;
      cell.insertBefore(own, link);
      cell.insertBefore(document.createTextNode(" "), link);
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

// For the mouse; the keyboard has Left and Right.
function twisty(run, children) {
  const element = document.createElement("span");
  element.className = "twisty";
  element.setAttribute("aria-hidden", "true");
  element.title = `${children} nested ${children === 1 ? "run" : "runs"}`;
  return element;
}

function setFolded(id, folded) {
  fold(id, folded);
  refresh();
}

function mark(line) {
  const { id } = line.dataset;
  line.setAttribute("aria-selected", selected.has(id));
  line.tabIndex = id === active ? 0 : -1;
  for (const link of line.querySelectorAll("a")) link.tabIndex = id === active ? 0 : -1;
}

const rowOf = (id) => body.querySelector(`tr[data-id="${id}"]`);

export function markAll() {
  for (const line of body.rows) mark(line);
}

export function select(ids) {
  const before = [...selected].join();
  selected.clear();
  for (const id of ids) selected.add(id);
  markAll();
  if ([...selected].join() !== before) selectionCallback();
}

function toggle(id) {
  if (!selected.delete(id)) selected.add(id);
  anchor = id;
  markAll();
  selectionCallback();
}

function range(id) {
  const from = shown.findIndex((run) => run.id === (anchor ?? active));
  const to = shown.findIndex((run) => run.id === id);
  const ids = shown.slice(Math.min(from, to), Math.max(from, to) + 1).map((run) => run.id);
  select(ids);
}

function moveTo(index, extend) {
  const run = shown[Math.max(0, Math.min(index, shown.length - 1))];
  if (!run) return;
  if (extend && anchor === null) anchor = active;
  while (!rowOf(run.id)) addRows();
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
  if (event.target.closest(".twisty")) {
    active = id;
    setFolded(id, !isFolded(id));
    return;
  }
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
    moveTo(steps[event.key] === Infinity ? shown.length - 1 : at + steps[event.key], event.shiftKey);
  } else if (event.key === "ArrowRight" && rows[at]?.children) {
    if (isFolded(active)) setFolded(active, false);
    else moveTo(at + 1, false);
  } else if (event.key === "ArrowLeft" && rows[at]) {
    const parent = shown.findIndex((run) => run.id === rows[at].run.parent);
    if (rows[at].children && !isFolded(active)) setFolded(active, true);
    else if (rows[at].level > 1) moveTo(parent, false);
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
  if (body.rows.length < shown.length && scroller.scrollTop + 2 * scroller.clientHeight > scroller.scrollHeight) addRows();
});

// Metrics of some runs, those that all of them have first; and metrics of weights, units and the system of any loaded run.
export function metricNames(ids) {
  const counts = new Map();
  for (const id of ids) for (const name of Object.keys(runs.get(id)?.metrics ?? {})) counts.set(name, (counts.get(name) ?? 0) + 1);
  const shared = [...counts.keys()].sort((a, b) => (counts.get(b) === ids.length) - (counts.get(a) === ids.length) || a.localeCompare(b));
  const curves = [...new Set([...loaded.values()].flatMap((known) => known.metric_names))].filter((name) => CURVES.test(name) && !counts.has(name));
  return [...shared, ...curves.sort()];
}
