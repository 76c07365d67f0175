// State of the page, kept in the URL, so that a link shows a colleague the same view.

const LISTS = new Set(["e", "r", "c", "m", "x"]);

// e experiments, f filter, a author, k kind, t tag, o order ("-" prefix: descending), r runs (prefixes of their ids),
// c columns, m metrics, u horizontal axis, z first and last step, s points in a moving average, l log scale, j epoch by
// which runs are judged, x folded parents (see tree.js), n note
export const state = read();

function read() {
  const values = { e: [], f: "", a: "", k: "", t: "", o: "-started", r: [], c: [], m: [], u: "", z: "", s: "", l: "", j: "", x: [], n: "" };
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
    if (key in values) values[key] = LISTS.has(key) ? value.split(",").filter(Boolean).map(decodeURIComponent) : value;
  }
  return values;
}

export function updateState(change) {
  Object.assign(state, change);
  const hash = hashOf(state);
  if (hash !== location.hash) history.replaceState(null, "", hash || "#");
}

// The state as it is kept in a note: without the note itself.
export const currentView = () => hashOf({ ...state, n: "" }).slice(1);

function hashOf(state) {
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    const text = LISTS.has(key) ? value.map(encodeURIComponent).join(",") : value;
    if (text && !(key === "o" && text === "-started")) parameters.set(key, text);
  }
  return `#${parameters}`.replaceAll("%2C", ",");
}

export function reread() {
  return Object.assign(state, read());
}

// Shortest prefix of an id, of at least eight characters, that is unique among `ids`.
export function abbreviated(id, ids) {
  let length = 8;
  while (length < id.length && ids.some((other) => other !== id && other.startsWith(id.slice(0, length)))) length += 1;
  return id.slice(0, length);
}
