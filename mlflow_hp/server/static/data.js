// What the server is asked, and the runs that it told of.

export const runs = new Map(); // by id
export const loaded = new Map(); // experiment id -> {metric_names, left_out}
export const MOST = 100; // runs that can be compared at once

export async function ask(route, parameters = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== "" && value !== null) query.set(key, value);
  }
  const response = await fetch(`api/${route}?${query}`, { signal, headers: { Accept: "application/json" } });
  const answer = await response.json().catch((error) => {
    if (response.ok) throw error; // given up while it came, for one
    return {};
  });
  if (!response.ok) throw new Error(answer.error || `The server answered ${response.status} ${response.statusText}.`);
  return answer;
}

// The runs of an experiment, all or some; what was known of them is replaced.
export async function load(experiment, ids = []) {
  const answer = await ask("runs", { experiment: experiment.id, runs: ids.join(",") });
  const named = (columns, row) =>
    Object.fromEntries(Object.entries(columns).flatMap(([name, column]) => (column[row] === null ? [] : [[name, column[row]]])));
  if (!ids.length) {
    forget(experiment.id);
    loaded.set(experiment.id, { metric_names: answer.metric_names, left_out: answer.left_out });
  } else {
    const known = loaded.get(experiment.id);
    known.metric_names = [...new Set([...known.metric_names, ...answer.metric_names])].sort();
  }
  answer.runs.id.forEach((id, row) => {
    const run = named(answer.runs, row);
    run.experiment = experiment;
    run.params = named(answer.params, row);
    run.metrics = named(answer.metrics, row);
    run.tags = named(answer.tags, row);
    runs.set(id, run);
  });
}

export function forget(experimentId) {
  for (const [id, run] of runs) if (run.experiment.id === experimentId) runs.delete(id);
  loaded.delete(experimentId);
}

export const unfinished = (run) => run.status === "RUNNING" || run.status === "SCHEDULED";

export function told(value) {
  if (typeof value !== "number" || Number.isInteger(value)) return value === undefined ? "" : String(value);
  return String(Number(value.toPrecision(5)));
}

export function duration(run) {
  return run.ended ? (run.ended - run.started) / 1000 : undefined;
}

export function inWords(seconds) {
  if (seconds === undefined) return "";
  if (seconds < 60) return `${told(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Whether a run passes: words in its name, id, author, status or params; name=value, name<number and so on.
export function passes(run, words, tag) {
  for (const word of words) {
    const test = /^([^<>=!]+)(<=|>=|!=|=|<|>)(.+)$/.exec(word);
    if (!(test ? compares(run, test) : text(run).includes(word.toLowerCase()))) return false;
  }
  if (!tag) return true;
  const [name, ...value] = tag.split("=");
  const own = run.tags[name.trim()];
  return own !== undefined && (!value.length || own.toLowerCase().includes(value.join("=").trim().toLowerCase()));
}

function text(run) {
  const params = Object.entries(run.params).map(([name, value]) => `${name}=${value}`);
  return [run.name, run.id, run.author, run.status, ...params].join("\n").toLowerCase();
}

function compares(run, [, name, sign, asked]) {
  const found = run.params[name] ?? run.metrics[name] ?? run[name];
  if (found === undefined || found === null) return sign === "!=";
  const [one, other] = [Number(found), Number(asked)];
  const numbers = !Number.isNaN(one) && !Number.isNaN(other);
  const [a, b] = numbers ? [one, other] : [String(found).toLowerCase(), asked.toLowerCase()];
  return { "=": a === b, "!=": a !== b, "<": numbers && a < b, ">": numbers && a > b, "<=": numbers && a <= b, ">=": numbers && a >= b }[sign];
}
