// Curves of metrics of the selected runs: one below the other over one axis, downsampled and smoothed by the server.

import { format, request, runs } from "./data.js";
import { draw } from "./figures.js";
import { COLOURS } from "./plotting.js";
import { state, updateState } from "./state.js";

export const AXES = { "": "step", log: "step, logarithmic", epoch: "epoch", time: "time" };
export const WINDOWS = [1, 5, 11, 25, 51, 101, 251, 501, 1001]; // points in a moving average
const MAX_FAINT = 10; // runs of which the values themselves are drawn behind the smoothed ones
const HEIGHT = 420; // pixels of one metric's figure; several share theirs
const HEIGHT_OF_SEVERAL = 250;
const GAP = 0.06; // between two metrics, as a share of the figure

const curve = document.getElementById("curve");
let pending = null; // the requests that are waited for
let watched = false;

const byStep = (metric) => /^(batch|weights|units|gradients)\//.test(metric);

// Function from a point's step and time to its place on the axis.
function placeOf(run, metric) {
  if (state.u === "log") return (step) => step + 1;
  if (state.u === "time") return (_, time) => (time - run.started) / 1000;
  if (state.u !== "epoch") return (step) => step;
  const ofEpoch = byStep(metric) ? Number(run.params.steps_per_epoch) : 1;
  return (step) => (step + 1) / ofEpoch;
}

const TITLES = { log: "step, counted from 1", epoch: "epochs done", time: "time since the run began" };

function shown(points, run, metric) {
  const place = placeOf(run, metric);
  return { x: points.steps.map((step, at) => place(step, points.times[at])), y: points.values };
}

async function pointsOf(ids, metric, range, smooth, signal) {
  const pixels = Math.min(4000, Math.max(200, Math.round(curve.clientWidth || 800)) * (state.u === "epoch" ? 4 : 1));
  const x = state.u === "epoch" ? "" : state.u;
  return request("histories", { runs: ids.join(","), metric, pixels, x, smooth: smooth > 1 ? smooth : "", ...range }, signal);
}

function tracesOf(metric, row, ids, values, faint) {
  const yaxis = row ? `y${row + 1}` : "y";
  const severalAuthors = new Set(ids.map((id) => runs.get(id).author)).size > 1;
  const label = ({ id, name, author }) => escaped((name || id.slice(0, 8)) + (severalAuthors ? ` · ${author}` : ""));
  return ids.flatMap((id, index) => {
    if (!values[id]) return [];
    const common = { type: "scatter", yaxis, meta: id, legendgroup: id, line: { color: COLOURS[index % COLOURS.length], width: 1.8 } };
    const unit = { time: " s", epoch: " epochs" }[state.u] ?? "";
    const main = {
      ...common, ...shown(values[id], runs.get(id), metric), mode: values[id].steps.length === 1 ? "markers" : "lines",
      name: label(runs.get(id)), showlegend: row === 0,
      hovertemplate: `${state.u && state.u !== "log" ? "" : "step "}%{x${state.u === "time" ? ":.1f" : ""}}${unit}: %{y:.6g}<extra>%{fullData.name}</extra>`,
    };
    if (!faint?.[id]) return [main];
    return [{ ...common, ...shown(faint[id], runs.get(id), metric), mode: "lines", opacity: 0.25, showlegend: false, hoverinfo: "skip", faint: true }, main];
  });
}

export async function drawCurves(ids) {
  pending?.abort();
  pending = new AbortController();
  const { signal } = pending;
  const [start, end] = state.z ? state.z.split(",").map(Number) : [];
  // A margin beyond the visible range, so that lines continue to its edges.
  const margin = state.z ? Math.max(1, Math.ceil((end - start) / 20)) : 0;
  const range = state.z ? { start: Math.floor(start) - margin, end: Math.ceil(end) + margin } : {};
  const metrics = state.m;
  const smooth = Number(state.s) || 1;
  let found;
  try {
    found = await Promise.all(metrics.map(async (metric) => {
      const faint = smooth > 1 && ids.length <= MAX_FAINT;
      const [values, raw] = await Promise.all([pointsOf(ids, metric, range, smooth, signal), faint ? pointsOf(ids, metric, range, 1, signal) : null]);
      return { metric, values, raw };
    }));
  } catch (error) {
    if (error.name === "AbortError") return;
    throw error;
  }
  // In the order of the selection, so that a run has one colour in all of them.
  const present = ids.filter((id) => found.some(({ values }) => values[id]));
  const data = found.flatMap(({ metric, values, raw }, row) => tracesOf(metric, row, present, values, raw));
  await draw(curve, { data, layout: layoutOf(metrics, data, start, end) });
  watchZoom();
  describe(metrics, found, present, smooth);
}

function layoutOf(metrics, data, start, end) {
  const n = metrics.length;
  const height = n === 1 ? HEIGHT : 120 + n * HEIGHT_OF_SEVERAL;
  const share = (1 - GAP * (n - 1)) / n;
  const axes = {};
  metrics.forEach((metric, row) => {
    const name = row ? `yaxis${row + 1}` : "yaxis";
    const top = 1 - row * (share + GAP);
    const own = data.filter((trace) => trace.yaxis === (row ? `y${row + 1}` : "y"));
    axes[name] = {
      title: { text: escaped(metric) }, type: state.l ? "log" : "linear", exponentformat: "power",
      domain: [Math.max(0, top - share), top], ...fittedRange(own, start, end),
    };
  });
  const zoomed = state.z ? { range: [start, end], autorange: false } : { autorange: true };
  const x = { title: { text: TITLES[state.u] ?? "step" }, type: state.u === "log" ? "log" : "linear", ticksuffix: state.u === "time" ? " s" : "", ...zoomed };
  return {
    ...axes, xaxis: { ...x, anchor: n === 1 ? "y" : `y${n}` }, showlegend: data.filter((trace) => trace.showlegend).length > 1,
    legend: { orientation: "h", y: n === 1 ? -0.2 : -80 / height, yanchor: "top" }, dragmode: "zoom", height,
  };
}

function describe(metrics, found, present, smooth) {
  const sum = (of) => found.reduce((all, { values }) => all + Object.values(values).reduce((part, points) => part + of(points), 0), 0);
  const [nPoints, nDrawn] = [sum((points) => points.n), sum((points) => points.steps.length)];
  const points = `${nPoints} ${nPoints === 1 ? "point" : "points"}`;
  const missing = found.filter(({ values }) => !Object.keys(values).length).map(({ metric }) => metric);
  const words = present.length === 0 ? "None of the selected runs has this metric."
    : nDrawn < nPoints ? `${points}, downsampled to the lowest and highest of each pixel; ${state.u ? "zoom in by step" : "zoom in"} to see them all`
    : `${points}, all drawn`;
  const smoothed = smooth > 1 ? `; each the mean of up to ${smooth}, centred` : "";
  const none = present.length && missing.length ? `; none has ${missing.join(", ")}` : "";
  const epochs = state.u === "epoch" && metrics.some((metric) => byStep(metric)) ? without(present) : "";
  document.getElementById("points").textContent = words + smoothed + none + epochs;
  const nRuns = `${present.length} ${present.length === 1 ? "run" : "runs"}`;
  document.getElementById("curve-words").textContent = `${metrics.join(", ")} of ${nRuns} by ${AXES[state.u] ?? "step"}.`;
  document.getElementById("whole").disabled = !state.z;
}

function without(ids) {
  const count = ids.filter((id) => !(Number(runs.get(id).params.steps_per_epoch) > 0)).length;
  return count ? `; ${count} without the param steps_per_epoch ${count === 1 ? "is" : "are"} not drawn` : "";
}

// plotly.js interprets some HTML in names; names of runs are plain text.
function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
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

// By step, the points of the range are asked for; on the other axes plotly.js magnifies those that are there.
function watchZoom() {
  if (watched) return;
  watched = true;
  curve.on("plotly_relayout", (change) => {
    if (state.u) return;
    const [start, end] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    if (start !== undefined) updateState({ z: `${format(Math.max(0, Math.round(start)))},${format(Math.round(end))}` });
    else if (change["xaxis.autorange"]) updateState({ z: "" });
    else return;
    zoomCallback();
  });
}

export function giveUp() {
  pending?.abort();
}
