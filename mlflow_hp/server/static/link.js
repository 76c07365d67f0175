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

function update() {
  const experiment = /experiments\/(\d+)/.exec(location.hash);
  const run = /runs\/([0-9a-f]{32})/.exec(location.hash);
  const compared = [.../runs=([^&]+)/.exec(location.hash)?.[1].matchAll(/[0-9a-f]{32}/g) ?? []].map((match) => match[0]);
  const state = new URLSearchParams();
  if (experiment) state.set("e", experiment[1]);
  const runs = run ? [run[1]] : compared;
  if (runs.length) state.set("r", runs.join(","));
  listLink.href = `hp/#${state}`;
  runLink.hidden = !run;
  runLink.style.display = run ? "" : "none";
  if (run) runLink.href = `hp/run/${run[1]}`;
}

addEventListener("hashchange", update);
addEventListener("popstate", update);
setInterval(update, 1000);
update();
box.append(runLink, listLink);
document.body.append(box);
