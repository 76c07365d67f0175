// Control of the descents that are drawn with that of a run; the choice is in the address (#with=ID,ID).

import { request } from "./data.js";

const STARTED = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short" });

// Ids of the other runs, in the order of their choice.
export function chosen() {
  const ids = new URLSearchParams(location.hash.slice(1)).get("with")?.split(",") ?? [];
  return [...new Set(ids)].filter((id) => /^[0-9a-f]+$/.test(id));
}

export class CompareWith {
  // `root` is a details element with a search field, a paragraph and a list; `onChange` is called after each choice.
  constructor(root, onChange) {
    this.root = root;
    this.onChange = onChange;
    this.base = null; // id of the run whose surface it is
    this.names = {}; // of the runs that are drawn
    this.runs = null; // that can be drawn, newest first; null before they are asked for
    this.atMost = Infinity;
    this.summary = root.querySelector("summary");
    this.filter = root.querySelector("input");
    this.said = root.querySelector("p");
    this.list = root.querySelector("ul");
    root.addEventListener("toggle", () => root.open && this.open());
    this.filter.addEventListener("input", () => this.draw());
    root.addEventListener("keydown", (event) => this.press(event));
    addEventListener("click", (event) => {
      if (!root.contains(event.target)) root.open = false;
    });
    addEventListener("hashchange", () => this.apply());
  }

  // `base` is drawn first, and `names` are those of all that are drawn.
  update(base, names) {
    if (base !== this.base) this.runs = null;
    this.base = base;
    this.names = names;
    this.root.hidden = !base;
    this.count();
    if (this.root.open && this.runs) this.draw();
  }

  count() {
    const n = chosen().length;
    this.summary.textContent = n ? `Compared with ${n} ${n === 1 ? "run" : "runs"}` : "Compare with";
  }

  async open() {
    if (!this.runs) this.said.textContent = "Looking for runs…";
    try {
      const answer = await request("comparable", { run: this.base });
      this.runs = answer.runs;
      this.atMost = answer.at_most - 1; // next to the run itself
    } catch (error) {
      this.said.textContent = error.message;
      return;
    }
    this.draw();
  }

  draw() {
    const ids = chosen();
    const listed = new Set(this.runs.map((run) => run.id));
    const further = ids.filter((id) => !listed.has(id)).map((id) => ({ id, name: this.names[id] ?? id }));
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const all = [...further, ...this.runs];
    const found = all.filter((run) => words.every((word) => `${run.name} ${run.author ?? ""} ${run.id}`.toLowerCase().includes(word)));
    const isFull = ids.length >= this.atMost;
    this.said.textContent = !all.length ? "No other run of this experiment has a descent on this surface."
      : !found.length ? `None of ${all.length} runs matches.`
        : isFull ? `${this.atMost + 1} descents are drawn, which is the most.` : "";
    const focused = this.list.contains(document.activeElement) ? document.activeElement.value : null;
    this.list.replaceChildren(...found.map((run) => this.item(run, ids, isFull)));
    if (focused) this.list.querySelector(`input[value="${focused}"]`)?.focus();
  }

  item(run, ids, isFull) {
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: ids.includes(run.id), value: run.id });
    box.disabled = isFull && !box.checked;
    box.addEventListener("change", () => this.choose(run.id, box.checked));
    const about = document.createElement("span");
    about.className = "hint";
    about.textContent = run.started ? ` ${run.author}, ${STARTED.format(run.started)}` : "";
    const label = document.createElement("label");
    label.append(box, ` ${run.name}`, about);
    const item = document.createElement("li");
    item.append(label);
    return item;
  }

  choose(id, isChosen) {
    const parameters = new URLSearchParams(location.hash.slice(1));
    const ids = chosen().filter((other) => other !== id);
    if (isChosen) ids.push(id);
    if (ids.length) parameters.set("with", ids.join(","));
    else parameters.delete("with");
    const hash = parameters.toString().replaceAll("%2C", ",");
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    this.apply();
  }

  apply() {
    this.count();
    if (this.root.open && this.runs) this.draw();
    this.onChange();
  }

  press(event) {
    if (event.key === "Escape" && this.root.open) {
      this.root.open = false;
      this.summary.focus();
      return;
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !this.root.open) return;
    const stops = [this.filter, ...this.list.querySelectorAll("input:not(:disabled)")];
    stops[Math.min(stops.length - 1, Math.max(0, stops.indexOf(document.activeElement) + step))].focus();
    event.preventDefault();
  }
}
