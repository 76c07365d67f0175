// In MLflow's own UI: links to the page with the current experiment and run, and to the page of that run.
const box = document.createElement("div");
Object.assign(box.style, { position: "fixed", right: "12px", bottom: "12px", zIndex: 1000, display: "flex", gap: "8px" });

function link(id, text) {
  const element = document.createElement("a");
  element.textContent = text;
  element.id = id;
  Object.assign(element.style, {
    padding: "6px 12px", borderRadius: "16px", background: "#0b5cad", color: "#fff", font: "13px system-ui, sans-serif", textDecoration: "none",
  });
  for (const event of ["pointerenter", "focus"]) element.addEventListener(event, update); // MLflow's UI navigates by pushState, without an event
  return element;
}

const runLink = link("mlflow-hp-run", "This run step by step");
const listLink = link("mlflow-hp-link", "Compare runs");

// MLflow's assistant opens at the right of the main part; closed, it is a round button in the lower right corner.
const ASSISTANT_PX = 64;

function place() {
  const main = document.querySelector("main")?.getBoundingClientRect();
  box.style.right = `${ASSISTANT_PX + (main?.width ? Math.max(0, innerWidth - main.right) : 0)}px`;
}

function idsIn(text) {
  return [...text.matchAll(/\b[0-9a-f]{32}\b/g)].map((match) => match[0]);
}

// Runs of MLflow's comparison, or else those that are ticked in the table of an experiment.
function severalRuns(hash) {
  const compared = /runs=([^&]+)/.exec(hash);
  if (compared) return idsIn(compared[1]);
  const ticked = document.querySelectorAll(".ag-row-selected a[href*='/runs/']");
  return [...new Set([...ticked].flatMap((element) => idsIn(element.getAttribute("href"))))];
}

function decoded(hash) {
  try {
    return decodeURIComponent(hash);
  } catch {
    return hash; // a lone %
  }
}

function update() {
  place();
  const hash = decoded(location.hash);
  const experiments = /experiments[/=]([^/?&]+)/.exec(hash)?.[1].match(/\d+/g); // of a comparison, a list
  const run = /runs\/([0-9a-f]{32})/.exec(hash);
  const state = new URLSearchParams();
  if (experiments) state.set("e", experiments.join(","));
  const runs = run ? [run[1]] : severalRuns(hash);
  if (runs.length) state.set("r", runs.join(","));
  listLink.href = `hp/#${state}`;
  runLink.hidden = !run;
  runLink.style.display = run ? "" : "none";
  if (run) runLink.href = `hp/run/${run[1]}`;
}

addEventListener("hashchange", update);
addEventListener("popstate", update);
addEventListener("resize", place);
setInterval(update, 1000);
update();
box.append(runLink, listLink);
document.body.append(box);
