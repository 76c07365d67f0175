// In MLflow's own UI, before it starts: "Model training" instead of "GenAI", until the user has chosen one of them above the menu.
// MLflow 3.17 decides by this key alone, not by the kind of an experiment; others ignore it.
const WORKFLOW = "mlflow.workflowType_v1";
try {
  if (localStorage.getItem(WORKFLOW) === null) localStorage.setItem(WORKFLOW, JSON.stringify("machine_learning"));
} catch {
  // a browser that stores nothing: MLflow's default stays
}
