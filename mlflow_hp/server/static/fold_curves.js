// Curves of the folds of a search's candidates by epoch: a colour for each candidate, a line for each fold.

import { request } from "./data.js";
import { COLOURS, SETTINGS, library, themed } from "./plotting.js";

const MAX_CANDIDATES = 10;
const MAX_FOLDS = 10;
const LEGEND_ROW = 22; // pixels: names of candidates are long, each may take a row
const LOG_FROM = 1000; // ratio of the largest value to the smallest from which a linear axis would show the largest alone
const FIRST = ["val_loss", "loss", "accuracy"];

export class FoldCurves {
  constructor(root) {
    this.choice = document.createElement("select");
    this.choice.addEventListener("change", () => this.draw());
    const label = document.createElement("label");
    label.append("Metric ", this.choice);
    this.bar = Object.assign(document.createElement("div"), { className: "bar" });
    this.said = document.createElement("span");
    this.bar.append(label, this.said);
    this.plot = Object.assign(document.createElement("div"), { className: "plot" });
    const figure = document.createElement("figure");
    figure.append(this.plot);
    this.heading = Object.assign(document.createElement("h3"), { textContent: "Curves of the folds" });
    this.box = document.createElement("div");
    this.box.append(this.heading, this.bar, figure);
    this.box.hidden = true;
    root.append(this.box);
  }

  // `runs` are the candidates, best first: {id, name}; `names` the names of their metrics.
  async update(runs, names) {
    const found = names.map((name) => /^fold_(\d+)\/(.+)$/.exec(name)).filter(Boolean);
    this.runs = runs.slice(0, MAX_CANDIDATES);
    this.folds = [...new Set(found.map((match) => Number(match[1])))].sort((a, b) => a - b).slice(0, MAX_FOLDS);
    const metrics = [...new Set(found.map((match) => match[2]))].sort();
    this.box.hidden = !metrics.length;
    if (!metrics.length) return;
    const chosen = metrics.includes(this.choice.value) ? this.choice.value : FIRST.find((name) => metrics.includes(name)) ?? metrics[0];
    this.choice.replaceChildren(...metrics.map((name) => new Option(name, name, false, name === chosen)));
    this.said.textContent = runs.length > MAX_CANDIDATES ? `the best ${MAX_CANDIDATES} of ${runs.length} candidates` : "";
    await this.draw();
  }

  async draw() {
    const metric = this.choice.value;
    const ids = this.runs.map((run) => run.id).join(",");
    const answers = await Promise.all(this.folds.map((fold) => request("histories", { runs: ids, metric: `fold_${fold}/${metric}`, pixels: 400 })));
    const data = this.runs.flatMap((run, index) => {
      const folds = this.folds.filter((_, at) => answers[at][run.id]);
      return folds.map((fold, order) => ({
        type: "scatter", mode: "lines+markers", name: run.name.replaceAll("<", "&lt;"), legendgroup: run.id, showlegend: order === 0,
        x: answers[this.folds.indexOf(fold)][run.id].steps, y: answers[this.folds.indexOf(fold)][run.id].values,
        line: { color: COLOURS[index % COLOURS.length], width: 1.4 }, marker: { size: 4 },
        hovertemplate: `epoch %{x}, fold ${fold}: %{y:.5g}<extra>%{fullData.name}</extra>`,
      }));
    });
    const last = Math.max(0, ...data.flatMap((trace) => trace.x));
    const values = data.flatMap((trace) => trace.y).filter((value) => Number.isFinite(value));
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const type = least > 0 && most > LOG_FROM * least ? "log" : "linear";
    const Plotly = await library();
    await Plotly.react(this.plot, data, themed({
      height: 300 + LEGEND_ROW * this.runs.length, xaxis: { title: { text: "epoch" }, ...(last < 10 ? { dtick: 1 } : {}) }, yaxis: { title: { text: metric }, type },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    }), SETTINGS);
  }
}
