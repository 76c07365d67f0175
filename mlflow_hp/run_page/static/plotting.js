// plotly.js, loaded when the first figure is drawn, and its colours in light and dark.

let plotly = null;

// `window.embeddedPlotly` is a promise in a document that carries plotly.js; else the server sends it.
export function library() {
  plotly ??= window.embeddedPlotly ?? new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL("plotly.js", import.meta.url);
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("The server did not send plotly.js."));
    document.head.append(script);
  });
  return plotly;
}

export const SETTINGS = {
  responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"],
  showSendToCloud: false, plotlyServerURL: "", // by default, a button uploads the figure to Plotly's server
};

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export function themed(layout) {
  const [text, grid] = [colour("text"), colour("line")];
  const axes = {};
  for (const name of new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))])) {
    axes[name] = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, automargin: true, ...layout[name] };
  }
  const scenes = {};
  for (const name of Object.keys(layout).filter((key) => /^scene\d*$/.test(key))) {
    const own = (axis) => ({ gridcolor: grid, zerolinecolor: grid, ...layout[name][axis] });
    scenes[name] = { ...layout[name], xaxis: own("xaxis"), yaxis: own("yaxis"), zaxis: own("zaxis") };
  }
  return {
    margin: { l: 60, r: 16, t: layout.title ? 48 : 16, b: 48 }, autosize: true, height: 380, hovermode: "closest",
    ...layout, ...axes, ...scenes,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, ...layout.font, color: text },
    hoverlabel: { bgcolor: colour("raised"), font: { color: text } },
  };
}

export const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7B4EA3", "#C44E52", "#4D9A8A"];
