// Notes on comparisons, shared with the team: tags of an experiment, written by MLflow's own API with its permissions.

import { request } from "./data.js";
import { currentView, state, updateState } from "./state.js";

const MAX_TEXT = 3000; // characters; with the view, a tag holds 5,000 on every version of MLflow
const MAX_TAG = 5000;
const AUTHOR = "mlflow_hp author"; // key in the browser's storage

const root = document.getElementById("notes");
const list = document.getElementById("notes-list");
const form = document.getElementById("note");
const fields = { name: document.getElementById("note-name"), text: document.getElementById("note-text"), author: document.getElementById("note-author") };
const said = document.getElementById("note-said");
const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

let notes = [];
let tag = ""; // start of the tags' names
let edited = null; // the note in the form; null for a new one
let experimentsCallback = () => [];

// `experiments` returns the ids of the experiments of the selected runs, or else of those that are shown.
export function onExperiments(experiments) {
  experimentsCallback = experiments;
}

export async function loadNotes() {
  const answer = state.e.length ? await request("notes", { experiments: state.e.join(",") }) : { notes: [], tag };
  ({ notes, tag } = answer);
  if (answer.sender && !fields.author.value) fields.author.value = answer.sender;
  draw();
  return notes;
}

function draw() {
  const n = notes.length;
  root.querySelector("summary").textContent = n ? `Notes (${n})` : "Notes";
  const focused = document.activeElement?.closest?.("#notes-list li")?.dataset.id;
  list.replaceChildren(...notes.map(item));
  if (focused) list.querySelector(`li[data-id="${CSS.escape(focused)}"] a`)?.focus();
  if (state.n && notes.some((note) => note.id === state.n)) root.open = true;
}

function item(note) {
  const element = document.createElement("li");
  element.dataset.id = note.id;
  if (note.id === state.n) element.setAttribute("aria-current", "true");
  const heading = document.createElement("h2");
  const link = document.createElement("a");
  link.textContent = note.name || "without a name";
  const view = new URLSearchParams(note.view);
  view.set("n", note.id);
  link.href = `#${view}`.replaceAll("%2C", ",");
  heading.append(link);
  const by = document.createElement("p");
  by.className = "quiet";
  by.textContent = [note.author && `by ${note.author}`, note.changed && WHEN.format(note.changed)].filter(Boolean).join(", ");
  const text = document.createElement("p");
  text.className = "text";
  text.textContent = note.text;
  const buttons = document.createElement("p");
  buttons.append(button("Edit", `Edit ${note.name}`, () => edit(note)), " ", removal(note));
  element.append(heading, by, text, buttons);
  return element;
}

function button(text, label, work) {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = text;
  element.setAttribute("aria-label", label);
  element.addEventListener("click", work);
  return element;
}

// The first click asks, the second deletes.
function removal(note) {
  const element = button("Delete", `Delete ${note.name}`, () => {
    if (element.dataset.asked) return saying(() => remove(note));
    element.dataset.asked = "yes";
    element.textContent = "Delete for everyone";
    element.setAttribute("aria-label", `Delete ${note.name} for everyone`);
    return undefined;
  });
  element.addEventListener("blur", () => {
    delete element.dataset.asked;
    element.textContent = "Delete";
    element.setAttribute("aria-label", `Delete ${note.name}`);
  });
  return element;
}

function edit(note) {
  edited = note;
  fields.name.value = note?.name ?? "";
  fields.text.value = note?.text ?? "";
  document.getElementById("note-title").textContent = note ? "Edit the note" : "New note";
  document.getElementById("note-new").hidden = !note;
  document.getElementById("note-view").hidden = !note;
  document.getElementById("note-keep").checked = true;
  if (note) fields.text.focus();
}

async function saying(work) {
  try {
    said.textContent = await work();
  } catch (error) {
    said.textContent = error.message;
  }
}

async function ask(route, content) {
  const response = await fetch(new URL(`../../ajax-api/2.0/mlflow/experiments/${route}`, import.meta.url), {
    method: "POST", headers: { "Content-Type": "application/json", Accept: "application/json" }, body: JSON.stringify(content),
  });
  if (response.ok) return;
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).message ?? text;
  } catch { /* plain text, as MLflow's permissions answer */ }
  const error = new Error(response.status === 403 ? "MLflow does not let you change this experiment: ask for the permission to edit it."
    : `MLflow refused the note (${response.status}): ${message.slice(0, 300)}`);
  error.status = response.status;
  throw error;
}

// What another has changed since this page read it is not overwritten unseen.
async function unchanged(note) {
  const before = JSON.stringify(note);
  const now = (await loadNotes()).find((other) => other.id === note.id && other.experiment === note.experiment);
  if (now && JSON.stringify(now) !== before) {
    if (edited?.id === note.id) edited = now;
    throw new Error(`${now.author || "Somebody"} has changed this note since you opened it: read it in the list, then save again to replace it.`);
  }
  if (!now && note.changed !== null) {
    if (edited?.id === note.id) edited = { ...note, changed: null };
    throw new Error("Somebody has deleted this note since you opened it: save again to write it anew.");
  }
}

async function save() {
  const experiment = edited?.experiment ?? experimentsCallback()[0];
  if (!experiment) throw new Error("Choose an experiment first: a note belongs to one.");
  const name = fields.name.value.trim();
  if (notes.some((note) => note.name === name && note.id !== edited?.id)) throw new Error(`There is a note “${name}”: edit that one, or take another name.`);
  if (edited) await unchanged(edited);
  const view = edited && document.getElementById("note-keep").checked ? edited.view : currentView();
  const note = { name, text: fields.text.value, view, author: fields.author.value.trim(), changed: Date.now() };
  const value = JSON.stringify(note);
  if (value.length > MAX_TAG) throw new Error(`The note takes ${value.length} characters with its view, of ${MAX_TAG}: shorten the text, or select fewer runs.`);
  const id = edited?.id ?? [...crypto.getRandomValues(new Uint8Array(6))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  await ask("set-experiment-tag", { experiment_id: experiment, key: tag + id, value });
  remember(note.author);
  edit(null);
  updateState({ n: id });
  await loadNotes();
  return `Saved “${name}” for everyone who may see the experiment.`;
}

async function remove(note) {
  await unchanged(note);
  const key = tag + note.id;
  try {
    await ask("delete-experiment-tag", { experiment_id: note.experiment, key });
  } catch (error) {
    if (error.status !== 404 && error.status !== 405) throw error;
    await ask("set-experiment-tag", { experiment_id: note.experiment, key, value: "" }); // a server that cannot delete tags
  }
  if (edited?.id === note.id) edit(null);
  if (state.n === note.id) updateState({ n: "" });
  await loadNotes();
  return `Deleted “${note.name}”.`;
}

function remember(author) {
  try {
    localStorage.setItem(AUTHOR, author);
  } catch { /* a browser that stores nothing */ }
}

try {
  fields.author.value = localStorage.getItem(AUTHOR) ?? "";
} catch { /* the same */ }
fields.text.maxLength = MAX_TEXT;
form.addEventListener("submit", (event) => {
  event.preventDefault();
  saying(save);
});
document.getElementById("note-new").addEventListener("click", () => edit(null));
root.addEventListener("toggle", () => root.open && saying(async () => {
  await loadNotes();
  return "";
}));
