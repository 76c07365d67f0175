// The answer of a run: its result, the findings in words, and what to try.

import { copyable } from "./copying.js";

const WORDS = { problem: "Problem", hint: "Hint", fine: "Fine" };

// `command` is copied by a button; `origin` is the server that it is to talk to.
export function showAnswer(root, { run, result, findings, settings, command, trouble, best }, origin = "") {
  const next = findings.find((finding) => finding.name === "next_try");
  const told = findings.filter((finding) => finding !== next);
  const main = told.filter((finding) => finding.severity !== "fine");
  const parts = [];
  if (settings.length) parts.push(paragraph(settings.map(([name, value]) => `${name} ${value}`).join(" · "), "settings"));
  if (result) parts.push(paragraph(plain(result), "result"));
  if (trouble) parts.push(paragraph(`The recording is incomplete: ${trouble}`, "bad"));
  if (best) parts.push(linked("Best: ", best));
  const list = document.createElement("ul");
  list.className = "findings";
  for (const finding of main) list.append(item(finding));
  if (main.length) parts.push(list);
  else if (told.length) parts.push(paragraph(run.status === "RUNNING" ? "Nothing is wrong so far." : "Nothing is wrong with this training.", "fine"));
  if (next) parts.push(paragraph(plain(next.text), "next"));
  const copied = copy(main, next, run, command, origin);
  if (copied) parts.push(copied);
  const fine = told.filter((finding) => finding.severity === "fine");
  if (fine.length) {
    const more = document.createElement("details");
    more.append(Object.assign(document.createElement("summary"), { textContent: `What is fine (${fine.length})` }));
    const rest = document.createElement("ul");
    rest.className = "findings";
    rest.append(...fine.map(item));
    more.append(rest);
    parts.push(more);
  }
  root.replaceChildren(...parts);
}

function item(finding) {
  const element = document.createElement("li");
  element.dataset.severity = finding.severity;
  const head = document.createElement("strong");
  head.textContent = `${WORDS[finding.severity]}: ${finding.verdict}. `;
  element.append(head, plain(finding.text));
  if (finding.suggestion) {
    const advice = document.createElement("p");
    advice.append(Object.assign(document.createElement("em"), { textContent: "Try: " }), plain(finding.suggestion));
    element.append(advice);
  }
  return element;
}

// Button that copies the command, or the settings to try where the program is the user's own.
function copy(main, next, run, command, origin) {
  const change = [...main, ...(next ? [next] : [])].find((finding) => finding.change)?.change;
  const isAdvised = main.length > 0 || Boolean(change);
  const text = command && isAdvised ? `${origin ? `MLFLOW_TRACKING_URI=${origin} ` : ""}${command}` : change;
  if (!text || run.status === "RUNNING") return null;
  return copyable(text, command ? "Copy the command" : "Copy the settings");
}

function linked(text, { id, name }) {
  const element = paragraph(text);
  element.append(Object.assign(document.createElement("a"), { textContent: name || id, href: id }));
  return element;
}

function paragraph(text, className = "") {
  return Object.assign(document.createElement("p"), { textContent: text, className });
}

// Markdown's marks are left out: texts are plain here.
const plain = (text) => text.replace(/[*`]{1,2}([^*`]+)[*`]{1,2}/g, "$1").replace(/^#+ /gm, "");
