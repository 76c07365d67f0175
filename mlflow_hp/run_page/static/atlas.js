// The document of an atlas: a map of outcomes or of the loss, and the descents of the point that was clicked.

import { COLOURS, SETTINGS, colour, library, themed } from "./plotting.js";
import { unpacked, unpackPlotly } from "./unpacking.js";

const OUTCOME_COLOURS = ["#56B4E9", "#009E73", "#E69F00", "#D55E00"];

unpackPlotly();
const atlas = JSON.parse(await unpacked("content"));
const charts = await library();
const [mapPlace, descentsPlace] = ["map", "descents"].map((id) => document.getElementById(id));

function axis(name, values) {
  const isLog = values[0] > 0 && values.at(-1) > 8 * values[0];
  return { title: { text: name }, type: isLog ? "log" : "linear" };
}

function cells(kind) {
  const text = atlas.y.map((y, row) => atlas.x.map((x, column) => {
    const loss = atlas.loss[row][column];
    return `${atlas.names[0]} ${x.toPrecision(3)}, ${atlas.names[1]} ${y}<br>${atlas.words[atlas.usual[row][column]]}`
      + `<br>${atlas.lossName} ${loss === null ? "not finite" : loss.toPrecision(3)}`;
  }));
  const common = { type: "heatmap", x: atlas.x, y: atlas.y, text, hovertemplate: "%{text}<extra></extra>" };
  if (kind === "outcome") {
    const steps = OUTCOME_COLOURS.flatMap((shade, index) => [[index / 4, shade], [(index + 1) / 4, shade]]);
    const bar = { tickvals: [0, 1, 2, 3], ticktext: atlas.words, len: 0.8 };
    return { ...common, z: atlas.usual, zmin: -0.5, zmax: 3.5, colorscale: steps, colorbar: bar };
  }
  const z = atlas.loss.map((row) => row.map((loss) => (loss > 0 ? Math.log10(loss) : null)));
  const finite = z.flat().filter((value) => value !== null);
  const lowest = finite.length ? Math.min(...finite) : 0;
  const bar = { title: { text: `log10 ${atlas.lossName}` }, len: 0.8 };
  return { ...common, z, zmin: lowest, zmax: lowest + 2, colorscale: "Viridis", reversescale: true, colorbar: bar };
}

function drawMap() {
  const marks = { x: atlas.valley, y: atlas.y, mode: "markers", name: "lowest loss", hoverinfo: "skip" };
  const line = { x: atlas.line, y: atlas.y, mode: "lines", name: "fitted power law", hoverinfo: "skip" };
  charts.react(mapPlace, [
    cells(document.getElementById("shown").value),
    { ...marks, marker: { color: "white", line: { color: "black", width: 1 }, size: 8 } },
    { ...line, line: { color: "black", dash: "dash" } },
  ].filter((trace) => trace.type === "heatmap" || trace.x.some((x) => x !== null)), themed({
    xaxis: { ...axis(atlas.names[0], atlas.x), showgrid: false }, yaxis: { ...axis(atlas.names[1], atlas.y), showgrid: false },
    height: 460, legend: { orientation: "h", y: 1.1 },
  }), SETTINGS);
}

function drawDescents(row, column) {
  const [x, y] = [atlas.x[column], atlas.y[row]];
  const words = atlas.outcomes[row][column].map((outcome, seed) => `seed ${seed} ${atlas.words[outcome]}`);
  document.getElementById("point").textContent = `${atlas.names[0]} ${x.toPrecision(3)}, ${atlas.names[1]} ${y}: ${words.join(", ")}.`;
  const lines = atlas.curves[row][column].map((curve, seed) => ({
    x: curve.map((_, index) => (100 * (index + 0.5)) / curve.length), y: curve, mode: "lines", name: `seed ${seed}`,
    line: { color: COLOURS[seed % COLOURS.length], width: 1.5 },
  }));
  const positive = atlas.curves[row][column].flat().every((loss) => loss === null || loss > 0);
  charts.react(descentsPlace, lines, themed({
    xaxis: { title: { text: "% of the steps" }, range: [0, 100] },
    yaxis: { title: { text: "training loss of a batch, mean over some steps" }, type: positive ? "log" : "linear" },
    height: 380,
  }), SETTINGS);
}

function lowestPoint() {
  let [lowest, place] = [Infinity, [0, 0]];
  atlas.loss.forEach((row, y) => row.forEach((loss, x) => {
    if (loss !== null && loss < lowest) [lowest, place] = [loss, [y, x]];
  }));
  return place;
}

drawMap();
drawDescents(...lowestPoint());
mapPlace.on("plotly_click", ({ points: [point] }) => {
  if (point.pointIndex?.length === 2) drawDescents(...point.pointIndex);
});
document.getElementById("shown").addEventListener("change", drawMap);
document.documentElement.dataset.shown = "all";
