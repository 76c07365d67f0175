"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const PAPER_WIDTH = 680;
  const SETTINGS = {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    showSendToCloud: false, plotlyServerURL: "",  // by default a button uploads the figure to its maker's server
  };

  function coloured(layout, isDark) {
    const [text, grid] = isDark ? ["#e6edf3", "#343b44"] : ["#1b1f24", "#d8dee4"];
    const axis = { gridcolor: grid, linecolor: grid, tickcolor: grid };
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: text, size: 13, family: "system-ui, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif" },
      xaxis: { ...layout.xaxis, ...axis }, yaxis: { ...layout.yaxis, ...axis },
      hoverlabel: { ...layout.hoverlabel, bgcolor: isDark ? "#1c2229" : "#ffffff", font: { color: text } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: isDark ? "#9da7b1" : "#57606a", activecolor: text },
    };
  }

  const places = () => document.querySelectorAll(".plot");
  const draw = (place, isDark, more = {}) => {
    const { data, layout } = figures[place.dataset.key];
    return Plotly.react(place, data, { ...coloured(layout, isDark), ...more }, SETTINGS);
  };
  const drawAll = (isDark, more) => places().forEach((place) => draw(place, isDark, more));

  async function begin() {
    for (const place of places()) {
      await draw(place, dark.matches);
      await new Promise((resolve) => setTimeout(resolve));  // the page answers between two figures
    }
    document.documentElement.dataset.drawn = "all";
  }
  // In an artifact viewer's frame a link to a place would lead out of the document.
  document.querySelector("nav").addEventListener("click", (event) => {
    const place = document.getElementById(event.target.hash?.slice(1));
    if (place) {
      event.preventDefault();
      place.scrollIntoView();
    }
  });
  dark.addEventListener("change", () => drawAll(dark.matches));
  // Paper is white, and narrower than the window.
  window.addEventListener("beforeprint", () => drawAll(false, { width: PAPER_WIDTH, autosize: false }));
  window.addEventListener("afterprint", () => drawAll(dark.matches, { width: null, autosize: true }));
  begin();
})();
