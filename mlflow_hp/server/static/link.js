// In MLflow's own UI: a link to the page with the current experiment and run.
const link = document.createElement("a");
link.textContent = "Compare runs";
link.id = "mlflow-hp-link";
Object.assign(link.style, {
  position: "fixed", right: "12px", bottom: "12px", zIndex: 1000, padding: "6px 12px", borderRadius: "16px",
  background: "#0b5cad", color: "#fff", font: "13px system-ui, sans-serif", textDecoration: "none",
});

function updateLink() {
  const experiment = /experiments\/(\d+)/.exec(location.hash);
  const run = /runs\/([0-9a-f]{32})/.exec(location.hash);
  const state = new URLSearchParams();
  if (experiment) state.set("e", experiment[1]);
  if (run) state.set("r", run[1]);
  link.href = `hp/#${state}`;
}

for (const event of ["pointerenter", "focus"]) link.addEventListener(event, updateLink); // MLflow's UI navigates by pushState, without an event
addEventListener("hashchange", updateLink);
updateLink();
document.body.append(link);
