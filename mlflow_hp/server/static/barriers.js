// Loss barriers between the run and others: those that were logged, and how to compute the others.

import { copyable } from "./copying.js";
import { COLOURS, SETTINGS, library, themed } from "./plotting.js";

const LOG_FROM = 30; // ratio of the highest to the lowest loss from which the axis is logarithmic

// `barriers` are those that were logged; `wanted` maps ids of runs without one to their names.
export async function showBarriers(root, { id, name }, barriers, wanted, origin) {
  const parts = [];
  const plots = [];
  for (const barrier of barriers) {
    const heading = document.createElement("h3");
    heading.append("Between this run and ", Object.assign(document.createElement("a"), { textContent: barrier.name, href: barrier.other }));
    const words = barrier.words.map((text) => Object.assign(document.createElement("p"), { textContent: text }));
    words.at(-1).className = "small";
    const plot = Object.assign(document.createElement("div"), { className: "plot" });
    const caption = Object.assign(document.createElement("figcaption"), { className: "unseen", textContent: `Loss between ${name} and ${barrier.name}, by position.` });
    const figure = document.createElement("figure");
    figure.append(plot, caption);
    plots.push([plot, figureOf(barrier, name)]);
    const article = document.createElement("article");
    article.append(heading, ...words, figure);
    parts.push(article);
  }
  if (Object.keys(wanted).length) {
    const words = document.createElement("p");
    words.textContent = "A barrier is computed in Python, where the data of the training are: model is compiled and of the same architecture, x and y are what it was trained on. Then it is shown here.";
    parts.push(words);
    for (const other of Object.keys(wanted)) {
      const line = `from mlflow_hp import barrier; barrier("${id}", "${other}", model, x, y, log=True, tracking_uri="${origin}")`;
      const box = copyable(line, "Copy the line");
      box.prepend(`With ${wanted[other]}: `);
      parts.push(box);
    }
  }
  root.replaceChildren(...parts);
  if (!plots.length) return;
  const Plotly = await library();
  for (const [plot, { data, layout }] of plots) await Plotly.react(plot, data, themed(layout), SETTINGS);
}

function figureOf(barrier, name) {
  const [first, second] = barrier.is_first ? [name, barrier.name] : [barrier.name, name];
  const height = (way) => (way.height === null ? "infinite" : Number(way.height.toPrecision(3)));
  const styles = { "straight line": [0, "solid"], "line, units aligned": [4, "dash"], "trained curve": [2, "solid"] };
  const lines = barrier.ways.map((way) => ({
    type: "scatter", mode: "lines+markers", name: `${way.name}: barrier ${height(way)}`, x: barrier.t, y: way.losses, marker: { size: 4 },
    line: { color: COLOURS[styles[way.name][0]], dash: styles[way.name][1], width: 2 }, hovertemplate: "t %{x:.2f}: loss %{y:.4g}<extra>%{fullData.name}</extra>",
  }));
  const ends = [barrier.ways[0].losses[0], barrier.ways[0].losses.at(-1)];
  const between = { type: "scatter", mode: "lines", name: "between the losses of the ends", x: barrier.t, y: barrier.t.map((t) => (1 - t) * ends[0] + t * ends[1]), line: { color: "#8a929c", dash: "dot", width: 1.5 }, hoverinfo: "skip" };
  const known = barrier.ways.flatMap((way) => way.losses).filter((loss) => loss !== null);
  const isLog = Math.min(...known) > 0 && Math.max(...known) / Math.min(...known) > LOG_FROM;
  const short = (text) => escaped(text.length > 30 ? `${text.slice(0, 29)}…` : text);
  return {
    data: [...lines, between],
    layout: {
      height: 320, margin: { l: 64, r: 16, t: 64, b: 48 }, legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
      xaxis: { title: { text: `position t, from ${short(first)} (0) to ${short(second)} (1)` }, range: [0, 1] },
      yaxis: { title: { text: "loss" }, type: isLog ? "log" : "linear", exponentformat: "power" },
    },
  };
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
