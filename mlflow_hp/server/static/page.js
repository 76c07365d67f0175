// Controls of the page, and their effects.

import { MAX_COMPARED, forget, load, loaded, request, runs, unfinished } from "./data.js";
import { chooseMetrics, onCurveChange, showCurveControls } from "./curve_controls.js";
import { drawCurves, giveUp, onZoom } from "./curves.js";
import { element, fillChoice, listItem } from "./elements.js";
import { clear, drawSections } from "./figures.js";
import { loadNotes, onExperiments } from "./notes.js";
import { abbreviated, updateState, reread, state } from "./state.js";
import { foldAll } from "./tree.js";
import { allColumns, chosenColumns, metricNames, onSelection, refresh, select, selected, shownRuns } from "./table.js";

const REFRESH_MS = 4000; // between requests for running runs
const LIST_EVERY = 8; // refreshes between requests for new runs

let experiments = [];

function showStatus(words = "") {
  element("status").textContent = words;
}

async function showingErrors(work) {
  try {
    return await work();
  } catch (error) {
    showStatus(error.message);
    return undefined;
  }
}

// ---- Experiments

function drawExperiments() {
  const wanted = element("experiments-filter").value.toLowerCase();
  const items = experiments.filter((item) => item.name.toLowerCase().includes(wanted)).map((item) => {
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = state.e.includes(item.id);
    box.addEventListener("change", () => {
      updateState({ e: box.checked ? [...state.e, item.id] : state.e.filter((id) => id !== item.id) });
      applyState();
    });
    return listItem(box, `${item.name} (${item.runs})`);
  });
  element("experiments-list").replaceChildren(...items);
  const names = experiments.filter((item) => state.e.includes(item.id)).map((item) => item.name);
  element("experiments-chosen").textContent = names.length ? names.join(", ") : "Experiments";
  document.title = `${names.join(", ") || "Compare runs"} · mlflow_hp`;
}

// ---- Runs

async function loadRuns(reload = false) {
  for (const id of [...loaded.keys()]) if (!state.e.includes(id)) forget(id);
  const wanted = experiments.filter((item) => state.e.includes(item.id) && (reload || !loaded.has(item.id)));
  await Promise.all(wanted.map((experiment) => load(experiment)));
  const leftOut = [...loaded.values()].reduce((sum, experiment) => sum + experiment.left_out, 0);
  showStatus(leftOut ? `${leftOut} older runs are not listed.` : "");
}

function drawControls() {
  const allRuns = [...runs.values()];
  const different = (property) => [...new Set(allRuns.map(property))].filter(Boolean).sort();
  fillChoice(element("author"), different((run) => run.author), state.a, ["", "all"]);
  fillChoice(element("kind"), different((run) => run.kind), state.k, ["", "all but folds"]);
  element("kind").add(new Option("all", "*"), 1);
  element("kind").value = state.k;
  if (document.activeElement !== element("filter")) element("filter").value = state.f;
  if (document.activeElement !== element("tag")) element("tag").value = state.t;
  element("tags").replaceChildren(...different((run) => Object.keys(run.tags).join("\n")).flatMap((names) => names.split("\n"))
    .filter((name, at, names) => name && names.indexOf(name) === at).map((name) => new Option(name, name)));
  showCurveControls();
  element("fold-all").hidden = element("unfold-all").hidden = !allRuns.some((run) => runs.has(run.parent));
  element("judge").value = state.j;
}

function drawColumns() {
  const all = allColumns();
  const chosen = chosenColumns(all);
  const items = [...all.values()].map((column) => {
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = chosen.includes(column.key);
    box.disabled = column.key === "name";
    box.addEventListener("change", () => {
      const now = chosenColumns(allColumns());
      updateState({ c: box.checked ? [...now, column.key] : now.filter((key) => key !== column.key) });
      refresh();
    });
    return listItem(box, column.key.startsWith("t.") ? `tag ${column.title}` : column.title);
  });
  element("columns-list").replaceChildren(...items);
}

function drawTable() {
  drawControls();
  refresh();
  count();
}

function count() {
  const words = `${shownRuns().length} of ${runs.size} runs shown, ${selected.size} selected`;
  element("count").textContent = selected.size > MAX_COMPARED ? `${words}; the first ${MAX_COMPARED} are compared` : words;
}

// ---- Comparison

const compared = () => [...selected].filter((id) => runs.has(id)).slice(0, MAX_COMPARED);

async function drawComparison(withSections = true) {
  const ids = compared();
  element("nothing").hidden = ids.length > 0;
  element("judging").hidden = ids.length === 0;
  element("curves").hidden = ids.length === 0 || !metricNames(ids).length;
  if (!ids.length) {
    giveUp();
    return clear();
  }
  chooseMetrics(ids);
  await Promise.all([
    state.m.length ? showingErrors(() => drawCurves(ids)) : null,
    withSections ? showingErrors(() => drawSections(ids)) : null,
  ]);
  return undefined;
}

let redraw = 0;

onSelection(() => {
  const ids = [...runs.keys()];
  updateState({ r: [...selected].slice(0, MAX_COMPARED).map((id) => abbreviated(id, ids)), z: "" });
  count();
  clearTimeout(redraw);
  redraw = setTimeout(drawComparison, 200);
});

onZoom(() => drawComparison(false));
onCurveChange(() => {
  clearTimeout(redraw);
  redraw = setTimeout(() => drawComparison(false), 100);
});
onExperiments(() => {
  const ofSelected = [...selected].filter((id) => runs.has(id)).map((id) => runs.get(id).experiment.id);
  return [...new Set(ofSelected), ...state.e];
});

// ---- State in the URL

async function applyState() {
  await showingErrors(async () => {
    drawExperiments();
    await loadRuns();
    const ids = [...runs.keys()];
    selected.clear();
    for (const prefix of state.r) {
      const id = ids.find((other) => other.startsWith(prefix));
      if (id) selected.add(id);
    }
    drawTable();
    drawColumns();
    await Promise.all([drawComparison(), loadNotes()]);
  });
}

// ---- Controls

for (const [id, key, event] of [["filter", "f", "input"], ["tag", "t", "input"], ["author", "a", "change"], ["kind", "k", "change"]]) {
  element(id).addEventListener(event, () => {
    updateState({ [key]: element(id).value });
    drawTable();
  });
}
element("filters").addEventListener("submit", (event) => event.preventDefault());
element("experiments-filter").addEventListener("input", drawExperiments);
element("columns").addEventListener("toggle", drawColumns);
element("select-all").addEventListener("click", () => select(shownRuns().map((run) => run.id)));
element("select-none").addEventListener("click", () => select([]));
element("fold-all").addEventListener("click", () => {
  foldAll(true);
  drawTable();
});
element("unfold-all").addEventListener("click", () => {
  foldAll(false);
  drawTable();
});
element("judge").addEventListener("change", () => {
  updateState({ j: element("judge").value });
  drawComparison();
});
addEventListener("hashchange", () => {
  reread();
  applyState();
});
addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
addEventListener("keydown", (event) => {
  const menu = event.target.closest?.("details.menu[open]");
  if (menu && event.key === "Escape") {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// ---- Running runs

let refreshes = 0;

// Whether there are new experiments, or new or ended runs in those that are shown.
async function hasNews() {
  const before = new Map(experiments.map((item) => [item.id, item]));
  experiments = await request("experiments");
  if (experiments.some((item) => !before.has(item.id)) || experiments.length !== before.size) drawExperiments();
  const changed = experiments.filter((item) => state.e.includes(item.id))
    .some((item) => item.runs !== before.get(item.id)?.runs || item.last !== before.get(item.id)?.last);
  if (!state.e.length && experiments.length) updateState({ e: [experiments[0].id] });
  return changed || [...runs.values()].some(unfinished) || state.e.some((id) => !loaded.has(id));
}

async function refreshRunning() {
  refreshes += 1;
  const running = compared().map((id) => runs.get(id)).filter(unfinished);
  const reload = refreshes % LIST_EVERY === 0 && (await hasNews());
  if (refreshes % LIST_EVERY === 0) await loadNotes();
  if (!running.length && !reload) return;
  const hasEnded = () => running.some((run) => !unfinished(runs.get(run.id) ?? run));
  if (reload) await loadRuns(true);
  else {
    for (const experiment of new Set(running.map((run) => run.experiment))) {
      await load(experiment, running.filter((run) => run.experiment === experiment).map((run) => run.id));
    }
  }
  drawTable();
  if (running.length) await drawComparison(hasEnded());
}

function scheduleRefresh() {
  setTimeout(async () => {
    if (!document.hidden) await showingErrors(refreshRunning);
    scheduleRefresh();
  }, REFRESH_MS);
}

await showingErrors(async () => {
  experiments = await request("experiments");
  if (!state.e.length && experiments.length) updateState({ e: [experiments[0].id] });
  if (!experiments.length) showStatus("There are no experiments that you may read.");
});
await applyState();
scheduleRefresh();
