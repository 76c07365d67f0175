// The page of a run as a document of its own: everything is in it, nothing is asked of a server.

import { showAnswer } from "./answer.js";
import { Descent } from "./descent.js";
import { Microscope } from "./microscope.js";
import { unpacked, unpackPlotly } from "./unpacking.js";

unpackPlotly();
const content = JSON.parse(await unpacked("content"));
const inside = (id) => {
  document.getElementById(id).hidden = false;
  return document.getElementById(id).querySelector(":scope > div");
};
showAnswer(document.getElementById("answer"), content.summary);
if (content.descent) new Descent(inside("descent")).update(content.descent, content.names);
if (content.training) await new Microscope(inside("microscope")).update(content.training);
document.documentElement.dataset.shown = "all";
