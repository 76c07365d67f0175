// Page of one run: loads what there is, and follows the run while it goes on.

import { showAnswer } from "./answer.js";
import { showBarriers } from "./barriers.js";
import { CompareWith, chosen } from "./compare_with.js";
import { copyable } from "./copying.js";
import { duration, formatDuration, request, unfinished } from "./data.js";
import { Descent } from "./descent.js";
import { Microscope } from "./microscope.js";
import { SETTINGS, library, themed } from "./plotting.js";
import { elementOf } from "./sections.js";
import { RunTable } from "./nested_runs.js";
import { WeightsView } from "./weights.js";

const LIVE_MS = 1000; // between requests while the run goes on
const SPEED_MS = 30_000; // over which the speed is measured
const PARTS = "scores,differences,importance";
const MAX_DESCENTS = 20;
const MAX_SECTIONS = 100; // runs that are compared

const element = (id) => document.getElementById(id);
const runId = document.documentElement.dataset.run;
const origin = new URL("../..", import.meta.url).href.replace(/\/$/, "");
const inside = (id) => element(id).querySelector(":scope > div");

let firstTraining = request("training", { run: runId }); // what takes longest is asked for at once
firstTraining.catch(() => {}); // the request for the run says it
const seen = []; // steps done at the last requests
let answer = null;
let microscope = null;
let descent = null;
let compareWith = null;
let descentsAsked = 0; // requests so far
let weights = null;
let table = null;

const errors = new Map(); // by work that failed when it was last tried

async function showingErrors(work) {
  try {
    await work();
    errors.delete(work);
  } catch (error) {
    errors.set(work, error.message);
  }
  element("status").textContent = [...new Set(errors.values())].join(" ");
}

async function loadRun() {
  answer = await request("run", { run: runId });
  const { run } = answer;
  document.title = `${run.name} · mlflow_hp`;
  element("name").textContent = run.name;
  const seconds = duration(run);
  element("state").textContent = `${run.kind || "run"}, ${run.status.toLowerCase()}${seconds === undefined ? "" : ` in ${formatDuration(seconds)}`}, by ${run.author}`;
  element("state").dataset.status = run.status;
  element("list").href = `../#e=${run.experiment_id}&r=${runId.slice(0, 12)}`;
  element("stock").href = `../../#/experiments/${run.experiment_id}/runs/${runId}?workflowType=machine_learning`;
  showAnswer(element("answer"), answer, origin);
  if (run.parent) {
    const parent = document.createElement("p");
    parent.append("Part of ", Object.assign(document.createElement("a"), { textContent: "its parent run", href: run.parent }), ".");
    element("answer").prepend(parent);
  }
  showParams();
}

function showParams() {
  element("params").hidden = !answer.params.length;
  const rows = answer.params.map(([name, value]) => [name, value]);
  inside("params").replaceChildren(elementOf({ title: "", words: [], level: 3, table: { caption: "Parameters of the run", columns: ["name", "value"], rows } }).element.querySelector("table"));
}

// ---- Training

async function loadTraining() {
  const asked = firstTraining ?? request("training", { run: runId });
  firstTraining = null;
  const { training } = await asked;
  element("microscope").hidden = !training;
  if (!training) return;
  microscope ??= new Microscope(inside("microscope"), {
    fetchRange: async (start, stop) => (await request("training", { run: runId, start, stop })).training,
    onStep: (step) => weights?.show(undefined, step),
  });
  await microscope.update(training);
  showProgress(training);
}

function showProgress(training) {
  const { run } = answer;
  element("progress").hidden = !unfinished(run);
  if (!unfinished(run)) return;
  const params = Object.fromEntries(answer.params);
  const total = Number(params.epochs) * Number(params.steps_per_epoch) * run.fits;
  const done = training.n_steps;
  const epoch = training.epochs.steps.length;
  seen.push({ done, at: Date.now() });
  while (seen.length > 2 && seen[1].at < Date.now() - SPEED_MS) seen.shift();
  // The speed of the last half minute; at first, of all time since the run began.
  const isKnown = done > seen[0].done && Date.now() - seen[0].at > SPEED_MS / 5;
  const perStep = isKnown ? (Date.now() - seen[0].at) / (done - seen[0].done) : (Date.now() - run.started) / done;
  const words = [`step ${done.toLocaleString("en")}`, `${epoch} ${epoch === 1 ? "epoch" : "epochs"} done${params.epochs ? ` of ${params.epochs}` : ""}`];
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", "Steps done");
  if (total >= done && done) {
    words[0] += ` of ${total.toLocaleString("en")}`;
    words.push(`${formatDuration(Math.round((perStep * (total - done)) / 1000))} left at this speed`);
    Object.assign(bar, { max: total, value: done });
  }
  element("progress").replaceChildren(bar, ` ${words.join(", ")}`);
}

// The descent of this run, and of those that are compared with it; of a run without one, as a sweep, those of its nested runs.
async function loadDescent() {
  descentsAsked += 1;
  const asked = descentsAsked;
  const others = chosen().filter((id) => id !== runId);
  const nested = answer.run.kind === "fold" ? [] : answer.children.ids.slice(0, MAX_DESCENTS - others.length);
  let found = await request("descent", { runs: [runId, ...others].join(",") });
  const isOwn = found.descent?.paths.some((path) => path.run === runId);
  if (!isOwn && nested.length && found.descent?.kind !== "landscape") found = await request("descent", { runs: [...nested, ...others].join(",") });
  if (asked !== descentsAsked) return; // overtaken by another choice
  element("descent").hidden = !found.descent;
  if (!found.descent) return;
  descent ??= new Descent(inside("descent"), (id) => (id === runId ? null : id));
  compareWith ??= new CompareWith(element("with"), () => showingErrors(loadDescent));
  compareWith.update(found.descent.paths[0]?.run, found.names);
  descent.update(found.descent, found.names);
  showHowToGetASurface(found.descent);
  if (isOwn) await loadBarriers(found);
}

// A network's path has a surface if the loss around it was computed, which needs the data.
function showHowToGetASurface({ kind, paths }) {
  const root = element("landscape");
  root.hidden = kind !== "plane";
  if (root.hidden) return;
  const ids = paths.map((path) => path.run);
  const isOfEntryPoint = answer.params.some(([name]) => name === "landscape");
  const words = document.createElement("p");
  words.textContent = `It is computed where the data of the training are, ${isOfEntryPoint ? "by -P landscape=true or " : ""}in Python: model is compiled and of the same architecture, x and y are what it was trained on.${ids.length > 1 ? " The runs have to share their data." : ""} Then it is shown here.`;
  const names = ids.length > 1 ? `[${ids.map((id) => `"${id}"`).join(", ")}]` : `"${ids[0]}"`;
  const line = `import mlflow; from mlflow_hp.training import log_landscape; mlflow.set_tracking_uri("${origin}"); log_landscape(${names}, model, x, y)`;
  root.querySelector("div").replaceChildren(words, copyable(line, "Copy the line"));
}

// Barriers between this run and others: all that were logged; of the runs that are compared, also how to compute them.
async function loadBarriers({ descent: drawn, names }) {
  const { barriers } = await request("barriers", { run: runId });
  const known = new Set(barriers.map((barrier) => barrier.other));
  const others = drawn.kind !== "surface" ? drawn.paths.map((path) => path.run).filter((id) => id !== runId && !known.has(id)) : [];
  const wanted = Object.fromEntries(others.map((id) => [id, names[id]]));
  element("barriers").hidden = !barriers.length && !others.length;
  if (!element("barriers").hidden) await showBarriers(inside("barriers"), answer.run, barriers, wanted, origin);
}

async function loadWeights() {
  const { weights: first } = await request("weights", { run: runId });
  element("weights").hidden = !first;
  if (!first) return;
  weights ??= new WeightsView(inside("weights"), async (tensor, step) => (await request("weights", { run: runId, tensor, step })).weights);
  await weights.update(first);
}

// ---- Nested runs

async function loadNested() {
  const { ids, statuses } = answer.children;
  element("combinations").hidden = !ids.length && !answer.counts.planned;
  if (element("combinations").hidden) return;
  table ??= new RunTable(element("combinations"));
  await table.update(answer, ids, statuses);
}

async function loadSections() {
  const ids = answer.children.ids.slice(0, MAX_SECTIONS);
  if (ids.length < 2) return;
  const { sections } = await request("sections", { runs: ids.join(","), parts: PARTS });
  const items = sections.map((section) => elementOf(section));
  element("sections").replaceChildren(...items.map((item) => item.element));
  const Plotly = await library();
  for (const { plot, figure } of items) if (plot) await Plotly.react(plot, figure.data, themed(figure.layout ?? {}), SETTINGS);
}

async function filesIn(path) {
  const query = new URLSearchParams({ run_id: runId, ...(path ? { path } : {}) });
  const response = await fetch(`${origin}/ajax-api/2.0/mlflow/artifacts/list?${query}`);
  const files = response.ok ? (await response.json()).files ?? [] : [];
  return files.map((file) => file.path);
}

// The pictures of the run, and links to its documents, which MLflow shows.
async function loadPictures() {
  const [pictures, documents] = await Promise.all([filesIn("plots"), filesIn("")]);
  const figures = pictures.filter((path) => /\.(png|gif)$/.test(path)).map((path) => {
    const words = path.replace(/^plots\//, "").replace(/\.\w+$/, "").replaceAll("_", " ");
    const image = document.createElement("img");
    Object.assign(image, { loading: "lazy", alt: words, src: `${origin}/get-artifact?${new URLSearchParams({ path, run_uuid: runId })}` });
    const figure = document.createElement("figure");
    figure.append(image, Object.assign(document.createElement("figcaption"), { textContent: words }));
    return figure;
  });
  const links = documents.filter((path) => path.endsWith(".html")).map((path) => {
    const href = `../../#/experiments/${answer.run.experiment_id}/runs/${runId}/artifacts/${encodeURIComponent(path)}?workflowType=machine_learning`;
    return Object.assign(document.createElement("a"), { textContent: path, href });
  });
  element("pictures").hidden = !figures.length && !links.length;
  const words = document.createElement("p");
  words.append("To click on, in MLflow: ", ...links.flatMap((link, index) => (index ? [", ", link] : [link])));
  inside("pictures").replaceChildren(...(links.length ? [words] : []), ...figures);
}

// ---- Life

async function loadEnded() {
  await Promise.all([loadDescent, loadWeights, loadSections, loadPictures].map(showingErrors));
}

async function loadNews() {
  await loadRun();
  await Promise.all([loadTraining(), loadNested()]);
}

async function follow() {
  if (!document.hidden) {
    await showingErrors(loadNews);
    if (answer && !unfinished(answer.run)) {
      element("progress").hidden = true;
      await loadEnded();
      return;
    }
  }
  setTimeout(follow, LIVE_MS);
}

await showingErrors(loadRun);
if (answer) {
  library().catch(() => {}); // while the server reads the training; where it is drawn with, its error is shown
  await Promise.all([...[loadTraining, loadNested].map(showingErrors), loadEnded()]);
  if (unfinished(answer.run)) setTimeout(follow, LIVE_MS);
}
document.documentElement.dataset.shown = "all";
