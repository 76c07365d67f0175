// Figures of the selected runs, and the sections of their comparison.

import { request } from "./data.js";
import { SETTINGS, library, themed } from "./plotting.js";
import { elementOf } from "./sections.js";
import { state } from "./state.js";

const PARTS = "overview,scores,differences,descents,importance,next,leaderboard,time"; // no curves: drawCurves draws them

const curve = document.getElementById("curve");
const sections = document.getElementById("sections");
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map(); // element -> {data, layout} before theming
let lines = {}; // run id -> line style, from the comparison, so that a run has one colour in all figures

export async function draw(element, figure) {
  const Plotly = await library();
  if (!element.isConnected) return;
  drawn.set(element, figure);
  const data = figure.data.map((trace) => (lines[trace.meta] ? { ...trace, line: lines[trace.meta] } : trace));
  await Plotly.react(element, data, themed(figure.layout ?? {}), SETTINGS);
}

dark.addEventListener("change", () => {
  for (const [element, figure] of drawn) {
    if (element.isConnected) draw(element, figure);
    else drawn.delete(element);
  }
});

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
  sectionsRequest?.abort();
  sections.replaceChildren();
}
