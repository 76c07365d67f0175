// Nested runs below their parents, which can be folded.

import { state, updateState } from "./state.js";

// x: the ids of folded parents; with "*" in front, of those that are not.
export function isFolded(id) {
  return state.x.includes(id) !== (state.x[0] === "*");
}

export function fold(id, folded) {
  if (isFolded(id) === folded) return;
  updateState({ x: state.x.includes(id) ? state.x.filter((other) => other !== id) : [...state.x, id] });
}

export function foldAll(folded) {
  updateState({ x: folded ? ["*"] : [] });
}

// Rows of ordered runs: nested runs behind their parent, in the same order among themselves, unless it is folded; those
// whose parent is not among them stay where they are. Each is {run, level from 1, children}.
export function rowsOf(ordered) {
  const ids = new Set(ordered.map((run) => run.id));
  const nested = new Map();
  for (const run of ordered) {
    if (!ids.has(run.parent)) continue;
    if (nested.has(run.parent)) nested.get(run.parent).push(run);
    else nested.set(run.parent, [run]);
  }
  const rows = [];
  let seen = 0;
  const add = (run, level, visible) => {
    seen += 1;
    const children = nested.get(run.id) ?? [];
    if (visible) rows.push({ run, level, children: children.length });
    for (const child of children) add(child, level + 1, visible && !isFolded(run.id));
  };
  for (const run of ordered) if (!ids.has(run.parent)) add(run, 1, true);
  // A circle of parents, which a server may hold, is reached from no root.
  return seen === ordered.length ? rows : ordered.map((run) => ({ run, level: 1, children: 0 }));
}
