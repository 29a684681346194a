/* Draws the book's figures.
 *
 * Each figure is a <div class="kv-plot"> of fixed height with its plotly JSON in the <script> that
 * follows. It is drawn when it comes near the viewport, in the colours of the page's theme, and
 * redrawn when the theme or the width changes. Nothing is fetched, so pages work from file://.
 */
(() => {
  "use strict";
  const root = document.documentElement;
  const phone = window.matchMedia("(max-width: 575px)");
  // A finger that scrolls the page must not zoom a plot instead.
  const touch = window.matchMedia("(pointer: coarse)");

  function variable(name, fallback) {
    return getComputedStyle(root).getPropertyValue(name).trim() || fallback;
  }

  function colours() {
    const dark = root.dataset.theme === "dark";
    return {
      ink: variable("--kv-ink", dark ? "#d7dce2" : "#24292f"),
      grid: variable("--kv-grid", dark ? "#39414a" : "#dfe3e8"),
      paper: variable("--kv-paper", dark ? "#171b21" : "#ffffff"),
    };
  }

  function themed(template) {
    const { ink, grid, paper } = colours();
    const next = structuredClone(template) || {};
    const layout = (next.layout ||= {});
    const size = phone.matches ? 11 : layout.font?.size;
    const family = getComputedStyle(document.body).fontFamily;
    layout.font = { ...layout.font, color: ink, size, family };
    for (const axis of ["xaxis", "yaxis"]) {
      layout[axis] = Object.assign(layout[axis] || {}, { gridcolor: grid, linecolor: grid, zerolinecolor: grid });
    }
    layout.hoverlabel = { bgcolor: paper, bordercolor: grid, font: { color: ink } };
    return next;
  }

  /* Menus have no template: their colours are set one by one. */
  function menus(layout) {
    const { ink, grid, paper } = colours();
    return (layout.updatemenus || []).map((menu) => ({
      ...menu,
      bgcolor: paper,
      bordercolor: grid,
      font: { ...menu.font, color: ink },
    }));
  }

  const templates = new WeakMap();

  function draw(plot) {
    if (templates.has(plot)) return;
    const spec = JSON.parse(plot.nextElementSibling.textContent);
    const layout = spec.layout;
    templates.set(plot, structuredClone(layout.template));
    layout.template = themed(layout.template);
    layout.updatemenus = menus(layout);
    layout.autosize = true;
    // Titles of small multiples stand side by side.
    for (const note of layout.annotations || []) {
      if (phone.matches && note.font) note.font.size = Math.min(note.font.size, 10);
    }
    layout.dragmode = touch.matches ? false : layout.dragmode || "zoom";
    const config = { responsive: true, displaylogo: false, displayModeBar: false, doubleClick: "autosize" };
    window.Plotly.newPlot(plot, spec.data, layout, config).then(() => {
      plot.dataset.drawn = "true";
    });
  }

  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "600px 0px" },
  );

  const plots = [...document.querySelectorAll(".kv-plot")];

  function restyle() {
    for (const plot of plots) {
      if (!plot.dataset.drawn) continue;
      const update = { template: themed(templates.get(plot)) };
      if (plot.layout.updatemenus) update.updatemenus = menus(plot.layout);
      window.Plotly.relayout(plot, update);
    }
  }

  plots.forEach((plot) => watcher.observe(plot));
  new MutationObserver(restyle).observe(root, { attributes: true, attributeFilter: ["data-theme"] });
  phone.addEventListener("change", restyle);
  window.addEventListener("beforeprint", () => plots.forEach(draw));
})();
