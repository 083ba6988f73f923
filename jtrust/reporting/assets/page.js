"use strict";
// Draws the charts of the page's content; of a page that is watched, draws again what is new.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const views = new Map();
  let content = JSON.parse(document.getElementById("content").textContent);
  let picked = "";

  const theme = () => {
    const style = getComputedStyle(document.documentElement);
    const ink = (name) => style.getPropertyValue(name).trim();
    const font = getComputedStyle(document.body).fontFamily;
    const soft = ink("--soft"), line = ink("--line");
    return {
      background: null, font, view: { stroke: null },
      axis: {
        labelColor: soft, titleColor: soft, titleFontWeight: "normal", titleFontSize: 12,
        labelFontSize: 11.5, gridColor: line, domainColor: line, tickColor: line, titlePadding: 8,
        labelFont: font, titleFont: font,
      },
      rule: { color: ink("--ink") },
    };
  };

  const rowsOf = (chart) => chart.rows || chart.curves.flatMap((curve) => {
    const at = (list, i) => (list ? list[i] : null);
    return content.axes[curve.x].map((x, i) => ({
      x, y: curve.y[i], lo: at(curve.lo, i), hi: at(curve.hi, i), ref: at(curve.ref, i),
      s: content.settings[curve.s],
    }));
  });

  const draw = async (chart) => {
    const place = document.getElementById("chart-" + chart.id);
    const spec = JSON.stringify(chart.spec);
    const known = views.get(chart.id);
    if (known && known.spec === spec && known.place === place) {
      known.view.data("rows", rowsOf(chart));
      await known.view.runAsync();
      return;
    }
    if (known) known.view.finalize();
    const full = { ...structuredClone(chart.spec), data: { name: "rows", values: rowsOf(chart) } };
    const { view } = await vegaEmbed(place, full, {
      actions: false, renderer: "canvas", config: theme(),
    });
    views.set(chart.id, { view, spec, place });
    if (picked) await view.signal("pick", picked).runAsync();
  };

  const drawAll = async () => {
    for (const chart of content.charts) await draw(chart);
    document.documentElement.dataset.drawn = String(content.charts.length);
  };

  const press = () => {
    for (const chip of document.querySelectorAll(".chip")) {
      chip.setAttribute("aria-pressed", String(chip.dataset.setting === picked));
    }
  };

  document.getElementById("legend").addEventListener("click", (event) => {
    const chip = event.target.closest(".chip");
    if (!chip) return;
    picked = picked === chip.dataset.setting ? "" : chip.dataset.setting;
    press();
    for (const { view } of views.values()) view.signal("pick", picked).run();
  });

  dark.addEventListener("change", () => {
    for (const { view } of views.values()) view.finalize();
    views.clear();
    drawAll();
  });

  const take = async (fresh) => {
    // Charts stay where they are as long as they are the same ones.
    const same = fresh.fragments.charts === content.fragments.charts
      && fresh.fragments.profiles === content.fragments.profiles;
    for (const [name, html] of Object.entries(fresh.fragments)) {
      if (html === content.fragments[name]) continue;
      document.getElementById(name).innerHTML = html;
    }
    if (!same) {
      for (const { view } of views.values()) view.finalize();
      views.clear();
    }
    content = fresh;
    document.getElementById("title").textContent = content.title;
    if (!content.settings.includes(picked)) picked = "";
    press();
    await drawAll();
  };

  const watch = async (live) => {
    const made = document.getElementById("made");
    let version = live.version;
    for (;;) {
      await new Promise((done) => setTimeout(done, live.milliseconds));
      if (document.hidden) continue;
      try {
        const answer = await fetch("content.json?version=" + version, { cache: "no-store" });
        if (answer.status === 200) {
          const fresh = await answer.json();
          version = fresh.live.version;
          await take(fresh);
        }
        made.textContent = "Watching; newest figures of " + new Date().toLocaleTimeString();
      } catch {
        made.textContent = "jtrust watch does not answer; these are the last figures it gave.";
      }
    }
  };

  drawAll().then(() => { if (content.live) watch(content.live); });
})();
