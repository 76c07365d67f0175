// A section of a comparison as elements of the page: heading, words, text to copy, place of its figure, table.

import { copyable } from "./copying.js";
import { format } from "./data.js";

// `old` is the element of the same section before, whose plot is used again.
export function elementOf(section, old) {
  const element = document.createElement("section");
  element.dataset.key = section.key;
  const heading = document.createElement(section.level === 3 ? "h3" : "h2");
  heading.textContent = section.title;
  element.append(heading, ...section.words.map(paragraph));
  if (section.code) element.append(copyable(section.code, "Copy"));
  let plot = null;
  if (section.figure) {
    const figure = document.createElement("figure");
    plot = old?.querySelector(".plot") ?? document.createElement("div"); // reused, so that it does not flicker
    plot.className = "plot";
    const caption = document.createElement("figcaption");
    caption.className = "unseen";
    caption.textContent = section.alt;
    figure.append(plot, caption);
    element.append(figure);
  }
  if (section.table) element.append(tableOf(section.table));
  return { element, plot, figure: section.figure };
}

function paragraph(words) {
  const element = document.createElement("p");
  element.textContent = words;
  return element;
}

function tableOf({ caption, columns, rows }) {
  const box = document.createElement("div");
  box.className = "wide";
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", caption);
  const table = document.createElement("table");
  table.createCaption().textContent = caption;
  const head = table.createTHead().insertRow();
  for (const column of columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = column;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const value of row) {
      const cell = line.insertCell();
      if (value !== null && typeof value === "object") {
        const link = document.createElement("a");
        link.href = new URL(`../run/${value.run_id}`, import.meta.url);
        link.textContent = value.name;
        cell.append(link);
      } else {
        cell.textContent = value === null ? "" : format(value);
        if (typeof value === "number") cell.className = "number";
      }
    }
  }
  box.append(table);
  return box;
}
