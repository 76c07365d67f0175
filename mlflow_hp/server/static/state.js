// What is looked at, kept in the address, so that a link shows a colleague the same.

const LISTS = new Set(["e", "r", "c"]);

// e experiments, f words, a author, k kind, t tag, o order ("-" first: descending), r runs (beginnings of their ids),
// c columns, m metric, z first and last step, l logarithmic
export const state = read();

function read() {
  const found = { e: [], f: "", a: "", k: "", t: "", o: "-started", r: [], c: [], m: "", z: "", l: "" };
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
    if (key in found) found[key] = LISTS.has(key) ? value.split(",").filter(Boolean).map(decodeURIComponent) : value;
  }
  return found;
}

export function keep(change) {
  Object.assign(state, change);
  const written = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    const text = LISTS.has(key) ? value.map(encodeURIComponent).join(",") : value;
    if (text && !(key === "o" && text === "-started")) written.set(key, text);
  }
  const hash = `#${written}`.replaceAll("%2C", ",");
  if (hash !== location.hash) history.replaceState(null, "", hash || "#");
}

export function reread() {
  return Object.assign(state, read());
}

// The shortest beginning of an id, of eight characters or more, that no other of the ids has.
export function abbreviated(id, ids) {
  let length = 8;
  while (length < id.length && ids.some((other) => other !== id && other.startsWith(id.slice(0, length)))) length += 1;
  return id.slice(0, length);
}
