// Descent: paths on a surface, from above or as a surface that turns, with time. Drawn on a canvas, without WebGL.

import { COLOURS, colour } from "./plotting.js";

const TOP = Math.PI / 2; // pitch of the view from above
const TURNED = { yaw: -0.6, pitch: 0.62 };
const HEIGHT = 0.9; // of the surface, where its sides are 2
const BANDS = 24; // of colour, so that their edges are contours
const REST_MS = 200; // without a move of the view, until it rests
const SECONDS = 8; // of a whole play
const NEAR = 1; // pixels: points closer than that are one
const HALOED = 2000; // steps of a path that is drawn with a halo, against the surface behind it
const STEP = Math.PI / 24; // of a turn by the arrow keys

export class Descent {
  // `linkOf(run)` is the address of a run's page for the legend; null for none.
  constructor(root, linkOf = () => null) {
    this.root = root;
    this.linkOf = linkOf;
    this.colours = new Map(); // by run: a path keeps its colour while others come and go
    this.yaw = 0;
    this.pitch = TOP;
    this.zoom = 1;
    this.time = Infinity; // number of steps done; Infinity for the end
    this.surface = document.createElement("canvas"); // surface and whole paths: drawn again only when the view changes
    this.trail = document.createElement("canvas"); // paths up to the time: what is new is added
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.className = "descent";
    this.words = document.createElement("p");
    this.legend = document.createElement("ul");
    this.legend.className = "legend";
    this.build();
    const observer = new ResizeObserver(() => this.draw(true));
    observer.observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw(true));
  }

  build() {
    const bar = document.createElement("div");
    bar.className = "bar";
    this.flat = this.button("From above", () => this.look(0, TOP));
    this.solid = this.button("Surface", () => this.look(TURNED.yaw, TURNED.pitch));
    this.player = this.button("Play", () => this.toggle());
    const label = document.createElement("label");
    this.slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 1, value: 1, step: 1 });
    this.slider.className = "time";
    this.slider.addEventListener("input", () => {
      this.stop();
      this.setTime(Number(this.slider.value));
    });
    label.append("Step ", this.slider);
    this.now = document.createElement("output");
    bar.append(this.flat, this.solid, this.player, label, this.now);
    const figure = document.createElement("figure");
    figure.append(this.canvas);
    this.root.replaceChildren(bar, this.words, figure, this.legend);
    this.listen();
    this.showView();
  }

  button(text, action) {
    const element = document.createElement("button");
    element.type = "button";
    element.textContent = text;
    element.addEventListener("click", action);
    return element;
  }

  // `names` maps run ids to what the legend shows.
  update(data, names) {
    this.data = data;
    this.names = names;
    const xs = data.x ?? extent(data.paths.flatMap((path) => path.x), 0.08);
    const ys = data.y ?? extent(data.paths.flatMap((path) => path.y), 0.08);
    const zs = extent([...(data.z ?? []).flat(), ...data.paths.flatMap((path) => path.z)], 0);
    this.box = { x: [xs[0], xs.at(-1)], y: [ys[0], ys.at(-1)], z: [zs[0], zs.at(-1)] };
    this.last = Math.max(1, ...data.paths.map((path) => path.steps.at(-1) ?? 0));
    const atEnd = this.time >= Number(this.slider.max);
    this.slider.max = this.last;
    if (atEnd) this.time = this.last;
    this.slider.value = Math.min(this.time, this.last);
    for (const run of this.colours.keys()) if (!data.paths.some((path) => path.run === run)) this.colours.delete(run);
    for (const { run } of data.paths) if (!this.colours.has(run)) this.colours.set(run, this.freeColour());
    this.paths = data.paths.map((path) => ({
      color: this.colours.get(path.run), steps: path.steps, n: path.steps.length,
      x: Float64Array.from(path.x, (v) => scaled(v, this.box.x)), y: Float64Array.from(path.y, (v) => scaled(v, this.box.y)),
      z: Float64Array.from(path.z, (v) => (v === null ? 0 : this.up(v))), sx: new Float64Array(path.steps.length), sy: new Float64Array(path.steps.length),
    }));
    this.mesh = data.z && { x: data.x.map((v) => scaled(v, this.box.x)), y: data.y.map((v) => scaled(v, this.box.y)), z: data.z };
    this.words.textContent = data.words;
    this.canvas.setAttribute("aria-label", `${data.words} ${data.paths.map((path) => names[path.run] ?? path.run).join(", ")}.`);
    this.legend.replaceChildren(...data.paths.map((path) => this.legendItem(path.run)));
    if (data.minimum) {
      const item = document.createElement("li");
      item.append("★ ", data.best);
      this.legend.append(item);
    }
    this.setTime(this.time, true);
  }

  freeColour() {
    const used = [...this.colours.values()];
    return COLOURS.find((color) => !used.includes(color)) ?? COLOURS[used.length % COLOURS.length];
  }

  legendItem(run) {
    const item = document.createElement("li");
    const key = document.createElement("span");
    key.className = "key";
    key.style.background = this.colours.get(run);
    const href = this.linkOf(run);
    const name = this.names[run] ?? run;
    item.append(key, href ? Object.assign(document.createElement("a"), { href, textContent: name }) : name);
    return item;
  }

  up(z) {
    const [low, high] = this.box.z;
    return high > low ? ((z - low) / (high - low)) * HEIGHT : 0;
  }

  // ---- View

  look(yaw, pitch) {
    [this.yaw, this.pitch] = [yaw, Math.min(TOP, Math.max(0.15, pitch))];
    this.showView();
    this.moves();
  }

  // While the view moves, paths are drawn as plain pixels; smooth again when it rests.
  moves() {
    this.isMoving = true;
    clearTimeout(this.rest);
    this.rest = setTimeout(() => {
      this.isMoving = false;
      this.draw(true);
    }, REST_MS);
    this.draw(true);
  }

  showView() {
    const above = this.pitch >= TOP - 1e-6;
    this.flat.setAttribute("aria-pressed", above);
    this.solid.setAttribute("aria-pressed", !above);
  }

  listen() {
    let from = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      from = { x: event.clientX, y: event.clientY, yaw: this.yaw, pitch: this.pitch };
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (from) this.look(from.yaw + (event.clientX - from.x) / 150, from.pitch + (event.clientY - from.y) / 150);
    });
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => (from = null));
    this.canvas.addEventListener("keydown", (event) => {
      const turn = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] }[event.key];
      if (turn) this.look(this.yaw + turn[0], this.pitch + turn[1]);
      else if (event.key === " ") this.toggle();
      else if (event.key === "+" || event.key === "-") this.magnify(event.key === "+" ? 1.25 : 0.8);
      else return;
      event.preventDefault();
    });
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== this.canvas) return; // else the page scrolls
      event.preventDefault();
      this.magnify(Math.exp(-event.deltaY / 400));
    }, { passive: false });
  }

  magnify(factor) {
    this.zoom = Math.min(20, Math.max(0.5, this.zoom * factor));
    this.moves();
  }

  // ---- Time

  setTime(steps, redraw = false) {
    const isWhole = this.time >= this.last;
    this.time = Math.min(steps, this.last);
    if (isWhole !== this.time >= this.last) redraw = true; // the whole paths come or go
    this.slider.value = this.time;
    this.now.textContent = `${Math.round(this.time).toLocaleString("en")} of ${this.last.toLocaleString("en")} steps`;
    this.draw(redraw);
  }

  toggle() {
    if (this.playing) return this.stop();
    this.playing = true;
    this.player.textContent = "Pause";
    const from = this.time >= this.last ? 0 : this.time;
    const begun = performance.now();
    const frame = (now) => {
      if (!this.playing || !this.canvas.isConnected) return;
      const time = from + (Math.max(0, now - begun) / 1000 / SECONDS) * this.last;
      this.setTime(time);
      if (time >= this.last) this.stop();
      else requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    return undefined;
  }

  stop() {
    this.playing = false;
    this.player.textContent = "Play";
  }

  // ---- Drawing

  draw(viewChanged = false) {
    if (!this.data || !this.canvas.clientWidth) return;
    this.stale ||= viewChanged;
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => {
      this.planned = false;
      this.paint();
    });
  }

  paint() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      for (const canvas of [this.canvas, this.surface, this.trail]) [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
      this.stale = true;
    }
    const above = this.pitch >= TOP - 1e-6 && Math.abs(this.yaw) < 1e-6;
    const margin = { l: 62, r: 16, t: 12, b: 46 };
    // From above the axes fill the canvas; a surface keeps its proportions as it turns.
    const [sx, sy] = above ? [(width - margin.l - margin.r) / 2, (height - margin.t - margin.b) / 2] : [1, 1].map(() => Math.min(width, height * 1.25) / 3.1);
    const centre = above ? [margin.l + sx, margin.t + sy] : [width / 2, height / 2 + sy * HEIGHT * Math.cos(this.pitch) * 0.45];
    const [cosYaw, sinYaw, sinPitch, cosPitch] = [Math.cos(this.yaw), Math.sin(this.yaw), Math.sin(this.pitch), Math.cos(this.pitch)];
    this.view = {
      width, height, above,
      x: (x, y) => centre[0] + sx * this.zoom * (cosYaw * x - sinYaw * y),
      y: (x, y, z) => centre[1] - sy * this.zoom * ((sinYaw * x + cosYaw * y) * sinPitch + z * cosPitch),
      depth: (x, y) => sinYaw * x + cosYaw * y,
      // From above only: the frame of the axes, and the position of a pixel.
      frame: { left: centre[0] - sx, right: centre[0] + sx, top: centre[1] - sy, bottom: centre[1] + sy },
      atX: (px) => (px - centre[0]) / (sx * this.zoom),
      atY: (py) => (centre[1] - py) / (sy * this.zoom),
    };
    this.isQuick = this.isMoving && !above;
    if (this.stale) {
      for (const path of this.paths) {
        for (let i = 0; i < path.n; i += 1) {
          path.sx[i] = this.view.x(path.x[i], path.y[i]);
          path.sy[i] = this.view.y(path.x[i], path.y[i], path.z[i]);
        }
      }
      this.paintSurface(ratio);
      if (!this.isQuick) this.paintWhole(ratio);
      this.trailed = null;
      this.stale = false;
    }
    if (!this.isQuick) this.paintTrail(ratio);
    const pen = this.canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.drawImage(this.surface, 0, 0);
    if (!this.isQuick) pen.drawImage(this.trail, 0, 0);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.save();
    this.clip(pen);
    for (const path of this.paths) this.paintEnds(pen, path);
    this.paintMinimum(pen);
    pen.restore();
  }

  clip(pen) {
    const { above, frame } = this.view;
    if (!above) return;
    pen.beginPath();
    pen.rect(frame.left, frame.top, frame.right - frame.left, frame.bottom - frame.top);
    pen.clip();
  }

  // The whole paths, pale.
  paintWhole(ratio) {
    const pen = this.surface.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.save();
    this.clip(pen);
    if (this.time < this.last) for (const path of this.paths) strokePath(pen, path, 0, path.n, path.color, 1, 0.35);
    pen.restore();
  }

  // The paths up to the time; as it goes on, only what is new.
  paintTrail(ratio) {
    const pen = this.trail.getContext("2d");
    const from = this.trailed !== null && this.trailed <= this.time ? this.trailed : null;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    if (from === null) pen.clearRect(0, 0, this.trail.width, this.trail.height);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.save();
    this.clip(pen);
    for (const path of this.paths) {
      const start = from === null ? 0 : lastAt(path.steps, from);
      const until = lastAt(path.steps, this.time);
      if (!path.n || (from !== null && start === until)) continue;
      if (until - start < HALOED) strokePath(pen, path, start, until + 1, colour("raised"), 4, 1);
      strokePath(pen, path, start, until + 1, path.color, 2.2, 1);
    }
    pen.restore();
    this.trailed = this.time;
  }

  // Start and position of a path.
  paintEnds(pen, path) {
    if (!path.n) return;
    const until = lastAt(path.steps, this.time);
    pen.fillStyle = colour("raised");
    pen.strokeStyle = path.color;
    pen.lineWidth = 2;
    pen.fillRect(path.sx[0] - 4, path.sy[0] - 4, 8, 8);
    pen.strokeRect(path.sx[0] - 4, path.sy[0] - 4, 8, 8);
    pen.beginPath();
    pen.arc(path.sx[until], path.sy[until], 5.5, 0, 2 * Math.PI);
    pen.fillStyle = path.color;
    pen.fill();
    pen.strokeStyle = colour("raised");
    pen.stroke();
  }

  paintMinimum(pen) {
    if (!this.data.minimum) return;
    const [x, y] = [scaled(this.data.minimum[0], this.box.x), scaled(this.data.minimum[1], this.box.y)];
    pen.font = "22px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineWidth = 3;
    pen.strokeStyle = "#000";
    pen.fillStyle = "#f2c029";
    pen.strokeText("★", this.view.x(x, y), this.view.y(x, y, 0));
    pen.fillText("★", this.view.x(x, y), this.view.y(x, y, 0));
  }

  paintSurface(ratio) {
    const pen = this.surface.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.view.width, this.view.height);
    if (this.view.above) {
      if (this.mesh) this.paintMap(pen, ratio);
    } else {
      const image = this.mesh ? this.meshImage(pen, ratio) : pen.createImageData(this.surface.width, this.surface.height);
      if (this.isQuick) this.drawPixels(image, ratio);
      pen.putImageData(image, 0, 0);
    }
    this.paintAxes(pen);
  }

  // Turned: triangles of bands of height, far ones first, into the pixels; a canvas fills thousands of small shapes slowly.
  meshImage(pen, ratio) {
    const { x, y, z } = this.mesh;
    const { view } = this;
    const [width, height] = [this.surface.width, this.surface.height];
    const image = pen.createImageData(width, height);
    const target = new Uint32Array(image.data.buffer);
    const shades = Uint32Array.from({ length: BANDS + 1 }, (_, band) => {
      const [red, green, blue] = mixed(band / BANDS);
      return packed(red, green, blue);
    });
    const [low, high] = this.box.z;
    const n = x.length;
    const [px, py, pz] = [0, 1, 2].map(() => new Float32Array(n * y.length));
    for (let j = 0; j < y.length; j += 1) {
      for (let i = 0; i < n; i += 1) {
        const value = z[j][i];
        px[j * n + i] = view.x(x[i], y[j]) * ratio;
        py[j * n + i] = view.y(x[i], y[j], value === null ? HEIGHT : this.up(value)) * ratio;
        pz[j * n + i] = value === null ? NaN : high > low ? ((value - low) / (high - low)) * BANDS : 0;
      }
    }
    const columns = order(n - 1, view.depth(1, 0) > 0);
    const rows = order(y.length - 1, view.depth(0, 1) > 0);
    const byColumn = Math.abs(view.depth(1, 0)) > Math.abs(view.depth(0, 1));
    const quad = (i, j) => {
      const [p, q, r, s] = [j * n + i, j * n + i + 1, (j + 1) * n + i + 1, (j + 1) * n + i];
      fillTriangle(target, width, height, shades, px, py, pz, p, q, r);
      fillTriangle(target, width, height, shades, px, py, pz, p, r, s);
    };
    for (const one of byColumn ? columns : rows) for (const other of byColumn ? rows : columns) byColumn ? quad(one, other) : quad(other, one);
    return image;
  }

  // The paths up to the time, two pixels wide.
  drawPixels(image, ratio) {
    const target = new Uint32Array(image.data.buffer);
    for (const path of this.paths) {
      const [red, green, blue] = [1, 3, 5].map((at) => parseInt(path.color.slice(at, at + 2), 16));
      const until = lastAt(path.steps, this.time);
      for (let i = 1; i <= until; i += 1) {
        drawLine(target, image.width, image.height, packed(red, green, blue), path.sx[i - 1] * ratio, path.sy[i - 1] * ratio, path.sx[i] * ratio, path.sy[i] * ratio);
      }
    }
  }

  // From above: each pixel has the height between its four neighbours, and the edges of the bands are contours.
  paintMap(pen, ratio) {
    const { x, y, z } = this.mesh;
    const { view } = this;
    const [left, right] = [Math.max(0, view.frame.left), view.frame.right];
    const [top, bottom] = [Math.max(0, view.frame.top), view.frame.bottom];
    const [width, height] = [Math.round((right - left) * ratio), Math.round((bottom - top) * ratio)];
    if (width < 1 || height < 1) return;
    const image = pen.createImageData(width, height);
    const shades = Array.from({ length: BANDS + 1 }, (_, band) => mixed(band / BANDS));
    const [low, high] = this.box.z;
    let below = new Int16Array(width).fill(-2);
    for (let row = height - 1; row >= 0; row -= 1) {
      const b = view.atY(top + (row + 0.5) / ratio);
      const j = Math.floor(((b + 1) / 2) * (y.length - 1));
      const bands = new Int16Array(width).fill(-1);
      if (j >= 0 && j < y.length - 1) {
        const v = ((b + 1) / 2) * (y.length - 1) - j;
        for (let column = 0; column < width; column += 1) {
          const at = ((view.atX(left + (column + 0.5) / ratio) + 1) / 2) * (x.length - 1);
          const i = Math.floor(at);
          if (i < 0 || i >= x.length - 1) continue;
          const u = at - i;
          const [p, q, r, s] = [z[j][i], z[j][i + 1], z[j + 1][i], z[j + 1][i + 1]];
          if (p === null || q === null || r === null || s === null) continue;
          const value = (p * (1 - u) + q * u) * (1 - v) + (r * (1 - u) + s * u) * v;
          bands[column] = high > low ? Math.floor(((value - low) / (high - low)) * BANDS) : 0;
        }
      }
      for (let column = 0; column < width; column += 1) {
        const band = bands[column];
        if (band < 0) continue;
        const contour = below[column] !== band || (column && bands[column - 1] !== band);
        const [red, green, blue] = shades[Math.min(BANDS, band)];
        const share = contour && below[column] > -2 ? 0.8 : 1;
        const at = 4 * (row * width + column);
        [image.data[at], image.data[at + 1], image.data[at + 2], image.data[at + 3]] = [red * share, green * share, blue * share, 255];
      }
      below = bands;
    }
    pen.putImageData(image, Math.round(left * ratio), Math.round(top * ratio));
  }

  paintAxes(pen) {
    const { view, box } = this;
    const [text, line] = [colour("text"), colour("line")];
    pen.font = "12px system-ui, sans-serif";
    pen.fillStyle = text;
    pen.strokeStyle = this.mesh ? text : line;
    pen.lineWidth = 1;
    const factor = view.above ? 1 / this.zoom : 1; // of the half of the axes that is seen
    // The edges of the floor that are nearest to the viewer.
    const nearY = view.depth(0, 1) >= 0 ? -1 : 1;
    const nearX = view.above ? -1 : view.depth(1, 0) >= 0 ? -1 : 1;
    const edge = (points) => {
      pen.beginPath();
      points.forEach(([x, y], index) => pen[index ? "lineTo" : "moveTo"](view.x(x, y), view.y(x, y, 0)));
      pen.stroke();
    };
    edge(this.mesh && !view.above ? [[-nearX, nearY], [nearX, nearY], [nearX, -nearY]] : [[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]].map(([x, y]) => [x * factor, y * factor]));
    const label = (value, x, y, dx, dy, align) => {
      pen.textAlign = align;
      pen.textBaseline = "middle";
      pen.fillText(value, view.x(x, y) + dx, view.y(x, y, 0) + dy);
    };
    const zoomed = ([low, high]) => [((low + high) - (high - low) * factor) / 2, ((low + high) + (high - low) * factor) / 2];
    const toLeft = view.x(nearX, 0) < view.x(-nearX, 0);
    for (const value of ticks(...zoomed(box.x))) label(short(value), scaled(value, box.x), nearY * factor, 0, 14, "center");
    for (const value of ticks(...zoomed(box.y))) label(short(value), nearX * factor, scaled(value, box.y), toLeft ? -8 : 8, view.above ? 0 : 6, toLeft ? "right" : "left");
    pen.font = "600 12px system-ui, sans-serif";
    if (view.above) {
      label(this.data.labels[0], 0, nearY * factor, 0, 34, "center");
      pen.save();
      pen.translate(12, view.y(0, 0, 0));
      pen.rotate(-TOP);
      pen.textAlign = "center";
      pen.fillText(this.data.labels[1], 0, 0);
      pen.restore();
    } else {
      label(this.data.labels[0], 0, nearY, toLeft ? 30 : -30, 40, toLeft ? "left" : "right");
      label(this.data.labels[1], nearX, 0, toLeft ? -48 : 48, 26, toLeft ? "right" : "left");
      pen.textAlign = "left";
      pen.fillText(`height: ${this.data.height}, ${short(this.box.z[0])} to ${short(this.box.z[1])}`, 12, 16);
    }
  }
}

function strokePath(pen, path, start, stop, color, width, opacity) {
  pen.strokeStyle = color;
  pen.lineWidth = width;
  pen.globalAlpha = opacity;
  pen.beginPath();
  let [x, y] = [path.sx[start], path.sy[start]];
  pen.moveTo(x, y);
  for (let i = start + 1; i < stop; i += 1) {
    if (Math.abs(path.sx[i] - x) + Math.abs(path.sy[i] - y) < NEAR && i < stop - 1) continue;
    [x, y] = [path.sx[i], path.sy[i]];
    pen.lineTo(x, y);
  }
  pen.stroke();
  pen.globalAlpha = 1;
}

const packed = (red, green, blue) => (255 << 24) | (blue << 16) | (green << 8) | red; // little-endian, as all browsers' machines are

function drawLine(target, width, height, color, x, y, toX, toY) {
  const n = Math.max(1, Math.ceil(Math.max(Math.abs(toX - x), Math.abs(toY - y))));
  if (!(n < 4 * (width + height))) return; // far out of the view
  const [dx, dy] = [(toX - x) / n, (toY - y) / n];
  for (let i = 0; i <= n; i += 1) {
    const [px, py] = [(x + i * dx) | 0, (y + i * dy) | 0];
    if (px < 0 || py < 0 || px >= width - 1 || py >= height - 1) continue;
    const at = py * width + px;
    target[at] = target[at + 1] = target[at + width] = target[at + width + 1] = color;
  }
}

// Fill a triangle of projected points with the shades of its bands of height, pixel by pixel.
function fillTriangle(target, width, height, shades, px, py, pz, p, q, r) {
  const [ax, ay, bx, by, cx, cy] = [px[p], py[p], px[q], py[q], px[r], py[r]];
  const area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
  if (!area || Number.isNaN(pz[p] + pz[q] + pz[r])) return;
  const left = Math.max(0, Math.floor(Math.min(ax, bx, cx)));
  const right = Math.min(width - 1, Math.ceil(Math.max(ax, bx, cx)));
  const top = Math.max(0, Math.floor(Math.min(ay, by, cy)));
  const bottom = Math.min(height - 1, Math.ceil(Math.max(ay, by, cy)));
  const [slopeB, slopeC] = [(cy - ay) / area, -(by - ay) / area]; // of the weights of b and c along a row
  const edge = -0.51 / Math.max(1, Math.sqrt(Math.abs(area))); // a little more than the triangle: no gaps between neighbours
  for (let y = top; y <= bottom; y += 1) {
    let b = ((left - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area;
    let c = ((bx - ax) * (y - ay) - (by - ay) * (left - ax)) / area;
    for (let at = y * width + left, end = y * width + right; at <= end; at += 1) {
      if (b >= edge && c >= edge && b + c <= 1 - edge) {
        const band = pz[p] + b * (pz[q] - pz[p]) + c * (pz[r] - pz[p]);
        target[at] = shades[band < 0 ? 0 : band >= BANDS ? BANDS : band | 0];
      }
      b += slopeB;
      c += slopeC;
    }
  }
}

// Index of the last step that is not after `time`.
function lastAt(steps, time) {
  let [low, high] = [0, steps.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (steps[middle] <= time) low = middle;
    else high = middle - 1;
  }
  return low;
}

const scaled = (value, [low, high]) => (high > low ? ((value - low) / (high - low)) * 2 - 1 : 0);
const order = (n, descending) => Array.from({ length: n }, (_, i) => (descending ? n - 1 - i : i));

function extent(values, margin) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  const space = margin * (high - low || Math.abs(high) || 1);
  return [low - space, high + space];
}

function ticks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const values = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) values.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return values;
}

const short = (value) => String(Number(value.toPrecision(3)));

// Colour of a height from 0 (low, dark) to 1: Viridis, in steps between its colours.
const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];

function mixed(share) {
  const at = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const index = Math.min(VIRIDIS.length - 2, Math.floor(at));
  return VIRIDIS[index].map((low, channel) => Math.round(low + (at - index) * (VIRIDIS[index + 1][channel] - low)));
}

const shade = (share) => `rgb(${mixed(share).join(",")})`;
