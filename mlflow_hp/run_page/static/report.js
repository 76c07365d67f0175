// The page of a run as a document of its own: everything is in it, nothing is asked of a server.

import { showAnswer } from "./answer.js";
import { Descent } from "./descent.js";
import { Microscope } from "./microscope.js";

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

window.embeddedPlotly = unpacked("plotly").then((source) => {
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
  return window.Plotly;
});

const content = JSON.parse(await unpacked("content"));
const inside = (id) => {
  document.getElementById(id).hidden = false;
  return document.getElementById(id).querySelector(":scope > div");
};
showAnswer(document.getElementById("answer"), content.summary);
if (content.descent) new Descent(inside("descent")).update(content.descent, content.names);
if (content.training) await new Microscope(inside("microscope")).update(content.training);
document.documentElement.dataset.shown = "all";
