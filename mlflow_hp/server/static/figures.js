// Figures of the selected runs: curves, and the sections of the comparison.

import { format, request, runs } from "./data.js";
import { COLOURS, SETTINGS, library, themed } from "./plotting.js";
import { elementOf } from "./sections.js";
import { updateState, state } from "./state.js";

const PARTS = "overview,scores,differences,descents,importance,leaderboard,time"; // no curves: drawCurves draws them

const curve = document.getElementById("curve");
const sections = document.getElementById("sections");
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map(); // element -> {data, layout} before theming
let lines = {}; // run id -> line style, from the comparison, so that a run has one colour in all figures

export async function draw(element, figure) {
  const Plotly = await library();
  if (!element.isConnected) return;
  const first = !drawn.has(element);
  drawn.set(element, figure);
  const data = figure.data.map((trace) => (lines[trace.meta] ? { ...trace, line: lines[trace.meta] } : trace));
  await Plotly.react(element, data, themed(figure.layout ?? {}), SETTINGS);
  if (first && element === curve) watchZoom();
}

dark.addEventListener("change", () => {
  for (const [element, figure] of drawn) {
    if (element.isConnected) draw(element, figure);
    else drawn.delete(element);
  }
});

// ---- Curves

let curveRequest = null;

export async function drawCurves(ids) {
  curveRequest?.abort();
  curveRequest = new AbortController();
  const { signal } = curveRequest;
  const [start, end] = state.z ? state.z.split(",").map(Number) : [];
  // A margin beyond the visible range, so that lines continue to its edges.
  const margin = state.z ? Math.max(1, Math.ceil((end - start) / 20)) : 0;
  const pixels = Math.max(200, Math.round(curve.clientWidth || 800));
  const range = state.z ? { start: Math.floor(start) - margin, end: Math.ceil(end) + margin } : {};
  let points;
  try {
    points = await request("histories", { runs: ids.join(","), metric: state.m, pixels, ...range }, signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    throw error;
  }
  const idsWithPoints = ids.filter((id) => points[id]);
  const severalAuthors = new Set(idsWithPoints.map((id) => runs.get(id).author)).size > 1;
  const label = ({ id, name, author }) => (name || id.slice(0, 8)) + (severalAuthors ? ` · ${author}` : "");
  const data = idsWithPoints.map((id, index) => ({
    type: "scatter", mode: points[id].steps.length === 1 ? "markers" : "lines", name: label(runs.get(id)),
    x: points[id].steps, y: points[id].values,
    line: { color: COLOURS[index % COLOURS.length], width: 1.8 }, meta: id,
    hovertemplate: "step %{x}: %{y:.6g}<extra>%{fullData.name}</extra>",
  }));
  const layout = {
    xaxis: { title: { text: "step" }, ...(state.z ? { range: [start, end], autorange: false } : { autorange: true }) },
    yaxis: { title: { text: state.m }, type: state.l ? "log" : "linear", exponentformat: "power", ...fittedRange(data, start, end) },
    showlegend: data.length > 1, legend: { orientation: "h", y: -0.2 }, dragmode: "zoom",
    height: 420,
  };
  await draw(curve, { data: data.map(escaped), layout });
  const nPoints = idsWithPoints.reduce((sum, id) => sum + points[id].n, 0);
  const nDrawn = idsWithPoints.reduce((sum, id) => sum + points[id].steps.length, 0);
  const words = idsWithPoints.length === 0 ? "None of the selected runs has this metric."
    : nDrawn < nPoints ? `${nPoints} points, downsampled to the lowest and highest of each pixel; zoom in to see them all`
    : `${nPoints} points, all drawn`;
  document.getElementById("points").textContent = words;
  document.getElementById("curve-words").textContent = `${state.m} by step of ${idsWithPoints.length} runs.`;
  document.getElementById("whole").disabled = !state.z;
}

// plotly.js interprets some HTML in names; names of runs are plain text.
function escaped(trace) {
  return { ...trace, name: trace.name.replaceAll("&", "&amp;").replaceAll("<", "&lt;") };
}

// Vertical axis that fits the visible steps.
function fittedRange(data, start, end) {
  if (start === undefined) return { autorange: true };
  const visible = data.flatMap((trace) => trace.y.filter((y, at) => y !== null && trace.x[at] >= start && trace.x[at] <= end));
  const usable = state.l ? visible.filter((y) => y > 0).map(Math.log10) : visible;
  if (!usable.length) return { autorange: true };
  const [low, high] = usable.reduce(([a, b], y) => [Math.min(a, y), Math.max(b, y)], [Infinity, -Infinity]);
  const space = (high - low || Math.abs(high) || 1) * 0.05;
  return { range: [low - space, high + space], autorange: false };
}

let zoomCallback = () => {};

export function onZoom(callback) {
  zoomCallback = callback;
}

function watchZoom() {
  curve.on("plotly_relayout", (change) => {
    const [start, end] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    if (start !== undefined) updateState({ z: `${format(Math.max(0, Math.round(start)))},${format(Math.round(end))}` });
    else if (change["xaxis.autorange"]) updateState({ z: "" });
    else return;
    zoomCallback();
  });
}

// ---- Sections

let sectionsRequest = null;

export async function drawSections(ids) {
  sectionsRequest?.abort();
  sectionsRequest = new AbortController();
  const { signal } = sectionsRequest;
  sections.setAttribute("aria-busy", "true");
  let content;
  try {
    ({ sections: content, lines } = await request("sections", { runs: ids.join(","), parts: PARTS, judge: state.j }, signal));
  } catch (error) {
    if (error.name === "AbortError") return;
    throw error;
  } finally {
    if (!signal.aborted) sections.removeAttribute("aria-busy");
  }
  if (drawn.has(curve)) draw(curve, drawn.get(curve));
  const old = new Map([...sections.children].map((element) => [element.dataset.key, element]));
  const items = content.map((section) => elementOf(section, old.get(section.key)));
  sections.replaceChildren(...items.map(({ element }) => element));
  await Promise.all(items.filter(({ plot }) => plot).map(({ plot, figure }) => draw(plot, figure)));
}

export function clear() {
  curveRequest?.abort();
  sectionsRequest?.abort();
  sections.replaceChildren();
}
