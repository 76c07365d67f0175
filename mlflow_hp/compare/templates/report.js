"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const PAPER_WIDTH = 680;
  const SETTINGS = {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    showSendToCloud: false, plotlyServerURL: "",  // by default, a button uploads the figure to Plotly's server
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

  const plots = () => document.querySelectorAll(".plot");
  const draw = (plot, isDark, overrides = {}) => {
    const { data, layout } = figures[plot.dataset.key];
    return Plotly.react(plot, data, { ...coloured(layout, isDark), ...overrides }, SETTINGS);
  };
  const drawAll = (isDark, overrides) => plots().forEach((plot) => draw(plot, isDark, overrides));

  async function begin() {
    for (const plot of plots()) {
      await draw(plot, dark.matches);
      await new Promise((resolve) => setTimeout(resolve));  // keeps the page responsive between figures
    }
    document.documentElement.dataset.drawn = "all";
  }
  // In the frame of an artifact viewer, an ordinary link to a section would leave the document.
  document.querySelector("nav").addEventListener("click", (event) => {
    const section = document.getElementById(event.target.hash?.slice(1));
    if (section) {
      event.preventDefault();
      section.scrollIntoView();
    }
  });
  dark.addEventListener("change", () => drawAll(dark.matches));
  // Paper is white and narrower than the window.
  window.addEventListener("beforeprint", () => drawAll(false, { width: PAPER_WIDTH, autosize: false }));
  window.addEventListener("afterprint", () => drawAll(dark.matches, { width: null, autosize: true }));
  begin();
})();
