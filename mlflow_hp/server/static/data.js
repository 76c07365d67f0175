// Requests to the server, and the runs loaded so far.

export const runs = new Map(); // by id
export const loaded = new Map(); // experiment id -> {metric_names, left_out}
export const MAX_COMPARED = 100; // runs

export async function request(route, parameters = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== "" && value !== null) query.set(key, value);
  }
  const response = await fetch(new URL(`../api/${route}?${query}`, import.meta.url), { signal, headers: { Accept: "application/json" } });
  const answer = await response.json().catch((error) => {
    if (response.ok) throw error; // for example, aborted while the body arrived
    return {};
  });
  if (!response.ok) throw new Error(answer.error || `The server answered ${response.status} ${response.statusText}.`);
  return answer;
}

// Load all or some runs of an experiment, replacing earlier versions of them.
export async function load(experiment, ids = []) {
  const answer = await request("runs", { experiment: experiment.id, runs: ids.join(",") });
  const valuesOf = (columns, row) =>
    Object.fromEntries(Object.entries(columns).flatMap(([name, column]) => (column[row] === null ? [] : [[name, column[row]]])));
  if (!ids.length) {
    forget(experiment.id);
    loaded.set(experiment.id, { metric_names: answer.metric_names, left_out: answer.left_out });
  } else {
    const known = loaded.get(experiment.id);
    known.metric_names = [...new Set([...known.metric_names, ...answer.metric_names])].sort();
  }
  answer.runs.id.forEach((id, row) => {
    const run = valuesOf(answer.runs, row);
    run.experiment = experiment;
    run.params = valuesOf(answer.params, row);
    run.metrics = valuesOf(answer.metrics, row);
    run.tags = valuesOf(answer.tags, row);
    runs.set(id, run);
  });
}

export function forget(experimentId) {
  for (const [id, run] of runs) if (run.experiment.id === experimentId) runs.delete(id);
  loaded.delete(experimentId);
}

export const unfinished = (run) => run.status === "RUNNING" || run.status === "SCHEDULED";

export function format(value) {
  if (typeof value !== "number" || Number.isInteger(value)) return value === undefined ? "" : String(value);
  return String(Number(value.toPrecision(5)));
}

export function duration(run) {
  return run.ended ? (run.ended - run.started) / 1000 : undefined;
}

export function formatDuration(seconds) {
  if (seconds === undefined) return "";
  if (seconds < 60) return `${format(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Whether a run matches all `words`: text in its name, id, author, status or params, or name=value, name<number, ...;
// and `tag`: a name, or name=value.
export function matches(run, words, tag) {
  for (const word of words) {
    const test = /^([^<>=!]+)(<=|>=|!=|=|<|>)(.+)$/.exec(word);
    if (!(test ? holds(run, test) : searchText(run).includes(word.toLowerCase()))) return false;
  }
  if (!tag) return true;
  const [name, ...value] = tag.split("=");
  const own = run.tags[name.trim()];
  return own !== undefined && (!value.length || own.toLowerCase().includes(value.join("=").trim().toLowerCase()));
}

function searchText(run) {
  const params = Object.entries(run.params).map(([name, value]) => `${name}=${value}`);
  return [run.name, run.id, run.author, run.status, ...params].join("\n").toLowerCase();
}

function holds(run, [, name, sign, operand]) {
  const value = run.params[name] ?? run.metrics[name] ?? run[name];
  if (value === undefined || value === null) return sign === "!=";
  const [one, other] = [Number(value), Number(operand)];
  const numbers = !Number.isNaN(one) && !Number.isNaN(other);
  const [a, b] = numbers ? [one, other] : [String(value).toLowerCase(), operand.toLowerCase()];
  return { "=": a === b, "!=": a !== b, "<": numbers && a < b, ">": numbers && a > b, "<=": numbers && a <= b, ">=": numbers && a >= b }[sign];
}
