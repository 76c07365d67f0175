// Controls of the curves: metrics, horizontal axis, smoothing, logarithmic scale, zoom.

import { AXES, WINDOWS } from "./curves.js";
import { runs } from "./data.js";
import { element, fillChoice, listItem } from "./elements.js";
import { state, updateState } from "./state.js";
import { metricNames } from "./table.js";

const MAX_METRICS = 6; // drawn at once
const MAX_LISTED = 200; // metrics
const FIRST_METRICS = ["batch/loss", "loss", "val_loss", "mean_score", "score", "mean_test_score"];

let names = []; // of the metrics of the compared runs
let changeCallback = () => {};

// `callback` draws the curves again.
export function onCurveChange(callback) {
  changeCallback = callback;
}

function change(values) {
  updateState(values);
  changeCallback();
}

export function showCurveControls() {
  element("log").checked = Boolean(state.l);
  element("axis").value = state.u;
  const points = WINDOWS.includes(Number(state.s)) ? Number(state.s) : 1;
  element("smoothing").value = WINDOWS.indexOf(points);
  const words = points > 1 ? `mean of up to ${points}` : "none";
  element("smoothing-words").textContent = words;
  element("smoothing").setAttribute("aria-valuetext", words);
}

// Keep the chosen metrics that the runs have; if none is left, choose one that all have.
export function chooseMetrics(ids) {
  names = metricNames(ids);
  const shared = names.filter((name) => ids.every((id) => name in runs.get(id).metrics));
  const first = (choice) => FIRST_METRICS.find((name) => choice.includes(name));
  const known = state.m.filter((name) => names.includes(name));
  const chosen = known.length ? known : [first(shared) ?? first(names) ?? shared[0] ?? names[0]].filter(Boolean);
  if (chosen.join() !== state.m.join()) updateState({ m: chosen });
  fillChoice(element("metric"), names, chosen[0] ?? "");
  drawMoreMetrics();
}

function drawMoreMetrics() {
  const wanted = element("more-filter").value.toLowerCase();
  const others = names.filter((name) => name !== state.m[0] && name.toLowerCase().includes(wanted));
  const ordered = [...others.filter((name) => state.m.includes(name)), ...others.filter((name) => !state.m.includes(name))];
  const items = ordered.slice(0, MAX_LISTED).map((name) => {
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = state.m.includes(name);
    box.disabled = !box.checked && state.m.length >= MAX_METRICS;
    box.addEventListener("change", () => change({ m: box.checked ? [...state.m, name] : state.m.filter((other) => other !== name) }));
    return listItem(box, name);
  });
  const at = [...element("more-list").querySelectorAll("input")].indexOf(document.activeElement);
  element("more-list").replaceChildren(...items);
  if (at >= 0) element("more-list").querySelectorAll("input")[at]?.focus();
  element("more-chosen").textContent = state.m.length > 1 ? `and ${state.m.length - 1} more` : "More metrics";
}

element("metric").addEventListener("change", () => {
  const name = element("metric").value;
  change({ m: [name, ...state.m.slice(1).filter((other) => other !== name)], z: "" });
});
element("more-filter").addEventListener("input", drawMoreMetrics);
element("axis").append(...Object.entries(AXES).map(([value, text]) => new Option(text, value)));
element("axis").addEventListener("change", () => change({ u: element("axis").value, z: "" }));
element("smoothing").max = WINDOWS.length - 1;
element("smoothing").addEventListener("input", () => {
  const points = WINDOWS[Number(element("smoothing").value)];
  change({ s: points > 1 ? String(points) : "" });
  showCurveControls();
});
element("log").addEventListener("change", () => change({ l: element("log").checked ? "1" : "" }));
element("whole").addEventListener("click", () => change({ z: "" }));
