// Microscope: curves by step and layers by step, one below the other over the same steps.

import { COLOURS, SETTINGS, colour, library, themed } from "./plotting.js";

const PANELS = ["loss", "learning rate", "gradient norm", "gradient cosine", "sharpness"];
const CURVE_HEIGHT = 150; // pixels
const GAP = 26;
const LABEL_SIZE = 10; // pixels
const LABELLED_ROWS = 24; // of a heatmap with more, only some rows have their name
const WAIT_MS = 120; // from the end of a zoom to the request for its steps
const NARROW = 600; // pixels
const AROUND = 40; // steps shown on each side of an event

export class Microscope {
  // `fetchRange(start, stop)` returns the data of a stretch, or null where there is no server to ask.
  constructor(root, { fetchRange = null, onStep = () => {} } = {}) {
    this.root = root;
    this.fetchRange = fetchRange;
    this.onStep = onStep;
    this.range = null; // steps that are shown; null for all
    this.log = true;
    this.whole = null;
    this.shown = null;
    this.plot = make("div", "plot");
    this.events = make("div", "events");
    this.note = make("p", "hint");
    this.note.setAttribute("role", "status");
    const bar = make("div", "bar");
    this.reset = button("All steps", () => this.show(null));
    this.reset.disabled = true;
    const scale = document.createElement("label");
    this.scale = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    this.scale.addEventListener("change", () => {
      this.log = this.scale.checked;
      this.draw();
    });
    scale.append(this.scale, " loss on a log scale");
    this.where = make("span");
    bar.append(this.reset, scale, this.where);
    const figure = document.createElement("figure");
    this.caption = make("figcaption", "unseen");
    figure.append(this.plot, this.caption);
    root.replaceChildren(bar, figure, this.note, this.events);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.shown && this.draw());
  }

  // Take the data of all steps; a stretch that is being looked at stays.
  async update(data) {
    this.whole = data;
    if (this.range) return this.show(this.range);
    this.shown = data;
    return this.draw();
  }

  // Show the steps [start, stop), or all.
  async show(range) {
    const total = this.whole.n_steps;
    let next = range && [Math.max(0, Math.floor(range[0])), Math.min(total, Math.ceil(range[1]))];
    if (next && next[1] - next[0] < 2) next = [Math.max(0, next[0] - 1), Math.min(total, next[0] + 1)];
    this.range = next && next[1] - next[0] < total ? next : null;
    this.reset.disabled = !this.range;
    this.shown = this.whole;
    if (this.range && this.fetchRange) {
      this.asked = this.range;
      const answer = await this.fetchRange(...this.range);
      if (this.asked !== this.range) return; // overtaken
      this.shown = answer ?? this.whole;
    }
    await this.draw();
  }

  async draw() {
    const Plotly = await library();
    if (!this.root.isConnected) return;
    const { data, layout, height } = figureOf(this.shown, this.range, this.log, this.root.clientWidth < NARROW);
    this.plot.style.height = `${height}px`;
    await Plotly.react(this.plot, data, themed(layout), { ...SETTINGS, scrollZoom: false });
    if (!this.watched) this.watch();
    const [start, stop] = this.range ?? [0, this.whole.n_steps];
    this.where.textContent = `steps ${start.toLocaleString("en")} to ${Math.max(start, stop - 1).toLocaleString("en")} of ${this.whole.n_steps.toLocaleString("en")}`;
    this.caption.textContent = `${PANELS.filter((panel) => this.shown.curves.some((curve) => curve.panel === panel)).join(", ")}, ` +
      `and ${this.shown.heatmaps.map((map) => map.title).join(", ") || "no statistics of layers"}, by step.`;
    this.note.textContent = this.shown.note ?? "";
    this.note.hidden = !this.shown.note;
    this.drawEvents();
  }

  watch() {
    this.watched = true;
    let timer = 0;
    this.plot.on("plotly_relayout", (change) => {
      const keys = Object.keys(change);
      const low = keys.find((key) => /^xaxis\d*\.range\[0\]$/.test(key));
      const high = keys.find((key) => /^xaxis\d*\.range\[1\]$/.test(key));
      const whole = keys.some((key) => /^xaxis\d*\.autorange$/.test(key));
      if (!low && !whole) return;
      clearTimeout(timer);
      timer = setTimeout(() => this.show(low ? [change[low], change[high]] : null), WAIT_MS);
    });
    this.plot.on("plotly_click", ({ points }) => this.onStep(Math.floor(points[0].x)));
  }

  // What deserves a look: the largest jumps, and what is not finite.
  drawEvents() {
    const { jumps, not_finite: broken } = this.whole;
    const items = [
      ...broken.map((each) => [each.step, `${each.column.replaceAll("_", " ")} is not finite ${place(each)}${each.n > 1 ? `, ${each.n} steps on end` : ""}`]),
      ...jumps.map((each) => [each.step, `loss from ${format(each.before)} to ${format(each.loss)} ${place(each)}`]),
    ];
    const old = this.events.dataset.items;
    this.events.dataset.items = JSON.stringify(items);
    if (old === this.events.dataset.items) return;
    this.events.replaceChildren();
    if (!items.length) return;
    const heading = make("h3");
    heading.textContent = broken.length ? "Not finite, and the largest jumps of the loss" : "The largest jumps of the loss";
    const list = document.createElement("ul");
    for (const [step, text] of items) {
      const item = document.createElement("li");
      item.append(button(text, () => this.show([step - AROUND, step + AROUND + 1])));
      list.append(item);
    }
    this.events.append(heading, list);
  }
}

function figureOf(shown, range, log, narrow) {
  const hasLosses = shown.epochs.steps.length && ["loss", "val_loss"].some((name) => shown.epochs.values[name]);
  const panels = PANELS.filter((panel) => (panel === "loss" && hasLosses) || shown.curves.some((curve) => curve.panel === panel));
  const metrics = Object.entries(shown.epochs.values).filter(([name]) => !/(^|_)loss$/.test(name) && name !== "learning_rate");
  const rows = [
    ...panels.map((panel) => ({ panel, height: CURVE_HEIGHT * (panel === "loss" ? 1.6 : 0.8) })),
    ...(metrics.length && shown.epochs.steps.length ? [{ metrics, height: CURVE_HEIGHT * 0.9 }] : []),
    ...shown.heatmaps.map((map) => ({ map, height: Math.min(360, Math.max(90, 26 + 15 * map.rows.length)) })),
  ];
  const length = narrow ? 9 : 22; // letters of a label
  const labels = shown.heatmaps.flatMap((map) => map.rows.map((name) => shortened(name, length)));
  const left = Math.max(narrow ? 60 : 72, Math.ceil(widest(labels)) + 12);
  const margin = narrow ? { l: left, r: 52, t: 96, b: 44 } : { l: left, r: 84, t: 34, b: 44 };
  const inner = rows.reduce((sum, row) => sum + row.height, 0) + GAP * Math.max(0, rows.length - 1);
  const [start, stop] = range ?? [shown.start, shown.stop];
  const layout = {
    height: inner + margin.t + margin.b, margin, showlegend: true, dragmode: "zoom", uirevision: "steps",
    legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0, font: { size: 11 } },
    xaxis: { title: { text: "step" }, range: [start, Math.max(start + 1, stop)], autorange: false, anchor: `y${rows.length > 1 ? rows.length : ""}`, automargin: false, tickformat: ",d", ...(stop - start < 10 ? { dtick: 1 } : {}) },
  };
  const data = [];
  let top = inner;
  rows.forEach((row, index) => {
    const number = index === 0 ? "" : String(index + 1);
    const domain = [Math.max(0, (top - row.height) / inner), top / inner];
    top -= row.height + GAP;
    layout[`yaxis${number}`] = { domain, fixedrange: true, zeroline: false, automargin: false }; // with it, all is laid out several times
    const axes = { xaxis: "x", yaxis: `y${number}` };
    if (row.map) drawHeatmap(row.map, axes, layout[`yaxis${number}`], domain, data, length);
    else if (row.metrics) drawMetrics(row.metrics, shown.epochs.steps, axes, layout[`yaxis${number}`], data, domain);
    else drawCurves(row.panel, shown, axes, layout[`yaxis${number}`], log, data);
  });
  return { data, layout, height: layout.height };
}

const QUIET = ["batch_loss", "running_loss"];

function drawCurves(panel, shown, axes, axis, log, data) {
  const curves = shown.curves.filter((curve) => curve.panel === panel);
  const ofEpochs = panel === "loss" ? ["loss", "val_loss"].flatMap((name) => (shown.epochs.values[name] ? [{ values: shown.epochs.values[name] }] : [])) : [];
  const positive = [...curves, ...ofEpochs].every((curve) => curve.values.every((value) => value === null || value > 0));
  const constant = curves.length === 1 && new Set(curves[0].values).size === 1;
  const onLog = panel === "loss" ? log && positive : panel !== "gradient cosine" && positive && !constant;
  Object.assign(axis, { title: { text: panel }, type: onLog ? "log" : "linear", exponentformat: "power", nticks: 5 });
  if (onLog) axis.dtick = logTick([...curves, ...ofEpochs]);
  if (constant && curves[0].values[0]) axis.range = [0, curves[0].values[0] * 2];
  const smooth = curves.some((curve) => curve.column.startsWith("smooth_"));
  let number = 0;
  for (const curve of curves) {
    const pale = smooth && QUIET.includes(curve.column);
    const line = curve.column === "running_loss" ? { color: colour("quiet"), width: 1, dash: "dot" }
      : pale ? { color: COLOURS[0], width: 0.8 } : { color: COLOURS[number++ % COLOURS.length], width: 1.8 };
    data.push({
      type: "scatter", mode: curve.steps.length < 60 ? "lines+markers" : "lines", name: curve.name, x: curve.steps, y: curve.values, ...axes, line,
      marker: { size: 4 }, opacity: pale ? 0.45 : 1, visible: curve.column === "running_loss" && smooth ? "legendonly" : true,
      hovertemplate: "step %{x}: %{y:.6g}<extra>%{fullData.name}</extra>", showlegend: panel === "loss" || curves.length > 1,
    });
  }
  if (panel === "loss") {
    for (const [name, dash] of [["loss", "dash"], ["val_loss", "solid"]]) {
      const values = shown.epochs.values[name];
      if (!values?.length || !shown.epochs.steps.length) continue;
      data.push({
        type: "scatter", mode: "lines+markers", name: name === "loss" ? "mean loss of the epoch" : "loss on the validation data", x: shown.epochs.steps, y: values, ...axes,
        line: { color: name === "loss" ? COLOURS[2] : COLOURS[1], width: 1.8, dash }, marker: { size: values.length > 60 ? 2 : 5 },
        hovertemplate: "epoch %{customdata}: %{y:.6g}<extra>%{fullData.name}</extra>", customdata: values.map((_, epoch) => epoch),
      });
    }
    const jumps = shown.jumps;
    if (jumps.length) {
      data.push({
        type: "scatter", mode: "markers", name: "largest jumps", x: jumps.map((each) => each.step), y: jumps.map((each) => each.loss), ...axes,
        marker: { symbol: "triangle-down-open", size: 10, color: colour("bad"), line: { width: 2 } }, hovertemplate: "step %{x}: %{y:.6g}<extra>jump</extra>",
      });
    }
  }
  const broken = shown.not_finite.filter((each) => curves.some((curve) => curve.column === each.column));
  if (broken.length) {
    const known = curves.flatMap((curve) => curve.values.filter((value) => value !== null));
    const height = known.length ? Math.max(...known) : 1;
    data.push({
      type: "scatter", mode: "markers", name: "not finite", x: broken.map((each) => each.step), y: broken.map(() => height), ...axes,
      marker: { symbol: "x", size: 9, color: colour("bad") }, hovertemplate: "step %{x}: not finite<extra></extra>",
    });
  }
}

// Whole powers of ten where the values span several, else plotly's own choice.
function logTick(curves) {
  const known = curves.flatMap((curve) => curve.values.filter((value) => value > 0));
  if (!known.length) return undefined;
  const magnitudes = Math.log10(Math.max(...known) / Math.min(...known));
  return magnitudes > 8 ? Math.ceil(magnitudes / 4) : magnitudes > 2 ? 1 : undefined;
}

function drawMetrics(metrics, steps, axes, axis, data) {
  Object.assign(axis, { title: { text: "epoch metrics" }, nticks: 5 });
  metrics.slice(0, COLOURS.length).forEach(([name, values], index) => {
    data.push({
      type: "scatter", mode: "lines+markers", name, x: steps, y: values, ...axes, line: { color: COLOURS[(index + 3) % COLOURS.length], width: 1.6 },
      marker: { size: values.length > 60 ? 2 : 4 }, hovertemplate: "epoch %{customdata}: %{y:.6g}<extra>%{fullData.name}</extra>", customdata: values.map((_, epoch) => epoch),
    });
  });
}

function drawHeatmap(map, axes, axis, domain, data, length) {
  const values = map.values.flat().filter((value) => value !== null && (!map.log || value > 0));
  const scaled = (value) => (value === null || (map.log && value <= 0) ? null : map.log ? Math.log10(value) : value);
  const sorted = values.map(scaled).sort((a, b) => a - b);
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))] ?? 0;
  let [low, high] = map.log ? [at(0.02), at(0.98)] : [0, 1];
  if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
  const rows = map.rows.map((_, index) => index);
  const every = Math.ceil(map.rows.length / LABELLED_ROWS);
  const ticks = map.log ? powers(low, high) : { tickvals: [0, 0.5, 1], ticktext: ["0", "0.5", "1"] };
  Object.assign(axis, {
    title: { text: "" }, type: "category", autorange: "reversed", tickvals: rows.filter((row) => row % every === 0),
    ticktext: rows.filter((row) => row % every === 0).map((row) => escaped(shortened(map.rows[row], length))), tickfont: { size: LABEL_SIZE }, showgrid: false,
  });
  data.push({
    type: "heatmap", x: map.steps, y: map.rows.map(escaped), z: map.values.map((row) => row.map(scaled)), customdata: map.values, ...axes,
    colorscale: "Viridis", zmin: low, zmax: high, hoverongaps: false, name: map.title,
    hovertemplate: `%{y}<br>${map.title} %{customdata:.3g}<br>from step %{x:.0f}<extra></extra>`,
    colorbar: { title: { text: map.title.replace(", ", ",<br>"), side: "top", font: { size: 10 } }, thickness: 10, len: domain[1] - domain[0], lenmode: "fraction", y: domain[1], yanchor: "top", x: 1.01, tickfont: { size: 10 }, ...ticks },
  });
  if (map.broken.length) {
    data.push({
      type: "scatter", mode: "markers", name: `${map.title}: not finite`, showlegend: false, ...axes,
      x: map.broken.map(([, column]) => (map.steps[column] + map.steps[column + 1]) / 2), y: map.broken.map(([row]) => escaped(map.rows[row])),
      marker: { symbol: "x", size: 7, color: colour("bad") }, hovertemplate: "not finite<extra></extra>",
    });
  }
}

function powers(low, high) {
  const step = Math.max(1, Math.ceil((high - low) / 4));
  let tickvals = [];
  for (let power = Math.ceil(low); power <= high; power += step) tickvals.push(power);
  if (tickvals.length < 2) tickvals = [low, (low + high) / 2, high];
  return { tickvals, ticktext: tickvals.map((power) => (Number.isInteger(power) ? `10<sup>${power}</sup>` : format(10 ** power, 2))) };
}

// Width of the widest label in pixels.
function widest(labels) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `${LABEL_SIZE}px system-ui, sans-serif`;
  return labels.reduce((most, label) => Math.max(most, pen.measureText(label).width), 0);
}

const shortened = (name, length) => (name.length > length ? `…${name.slice(1 - length)}` : name);
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const place = ({ step, epoch, batch }) => `at step ${step}${epoch === undefined ? "" : ` (epoch ${epoch}${batch === undefined ? "" : `, batch ${batch}`})`}`;

function format(value, digits = 4) {
  return typeof value === "number" ? String(Number(value.toPrecision(digits))) : String(value);
}

function make(tag, className = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  return element;
}

function button(text, action) {
  const element = make("button");
  element.type = "button";
  element.textContent = text;
  element.addEventListener("click", action);
  return element;
}
