// Histogram of a tensor's weights at a step, beside those before the first step.

import { COLOURS, SETTINGS, library, themed } from "./plotting.js";

export class WeightsView {
  // `fetchWeights(tensor, step)` returns the histogram of a tensor at the kept step nearest to one.
  constructor(root, fetchWeights) {
    this.fetchWeights = fetchWeights;
    this.choice = document.createElement("select");
    this.step = Object.assign(document.createElement("input"), { type: "number", min: 0 });
    this.said = document.createElement("span");
    const bar = document.createElement("div");
    bar.className = "bar";
    const labels = [["Tensor ", this.choice], ["After step ", this.step]].map(([text, control]) => {
      const label = document.createElement("label");
      label.append(text, control);
      return label;
    });
    bar.append(...labels, this.said);
    const figure = document.createElement("figure");
    this.plot = Object.assign(document.createElement("div"), { className: "plot" });
    figure.append(this.plot);
    root.replaceChildren(bar, figure);
    for (const control of [this.choice, this.step]) control.addEventListener("change", () => this.show(this.choice.value, Number(this.step.value)));
  }

  async show(tensor = this.choice.value, step = Number(this.step.value)) {
    const shown = await this.fetchWeights(tensor, step);
    if (shown) await this.update(shown);
  }

  async update(shown) {
    this.choice.replaceChildren(...shown.tensors.map((name) => new Option(name, name, false, name === shown.tensor)));
    this.step.value = shown.step;
    this.said.textContent = `${shown.n.toLocaleString("en")} weights${shown.n_not_finite ? `, ${shown.n_not_finite} of them not finite` : ""}`;
    const x = shown.counts.map((_, index) => (shown.edges[index] + shown.edges[index + 1]) / 2);
    const width = shown.edges[1] - shown.edges[0];
    const bars = (name, y, color, opacity) => ({ type: "bar", name, x, y, width, marker: { color }, opacity, hovertemplate: "%{x:.3g}: %{y}<extra>%{fullData.name}</extra>" });
    const data = [bars("before the first step", shown.first, "#8a929c", 0.6), bars(`after ${shown.step} steps`, shown.counts, COLOURS[0], 0.7)];
    const Plotly = await library();
    await Plotly.react(this.plot, data, themed({
      barmode: "overlay", height: 300, xaxis: { title: { text: `values of ${shown.tensor.replaceAll("<", "&lt;")}` } }, yaxis: { title: { text: "weights" } },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, margin: { l: 60, r: 16, t: 36, b: 48 },
    }), SETTINGS);
  }
}
