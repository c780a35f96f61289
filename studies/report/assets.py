"""How a study's page looks and moves: its style sheet and its script."""

CSS = """
:root {
  color-scheme: light dark;
  --surface: #ffffff; --ink: #1c232b; --muted: #5a6673; --line: #9aa5b1; --grid: #e8ecf0;
  --panel: #f5f7f9; --note: #fff4d6; --note-edge: #b07d00; --link: #00578a;
  --front: #0072b2; --seeded: #b84a00; --reference: #00795a; --infeasible: #8c4a78;
  --tuned: #7a6a00;
  --faint: #a9b4bf; --low: #c3ccd6; --middle: #5b9bc9; --high: #003f72;
}
@media (prefers-color-scheme: dark) {
  :root {
    --surface: #14181d; --ink: #e4e9ee; --muted: #a0acb8; --line: #66727f; --grid: #262d35;
    --panel: #1c2229; --note: #352b10; --note-edge: #e0b040; --link: #7cc4f0;
    --front: #56b4e9; --seeded: #f0a04b; --reference: #3cc79a; --infeasible: #d896c0;
    --tuned: #d8c840;
    --faint: #5d6975; --low: #3b4652; --middle: #3d86b8; --high: #c6e8ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.25rem clamp(0.8rem, 3vw, 2.5rem) 4rem; max-width: 84rem;
  background: var(--surface); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.25rem 0; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 0.5rem; padding-top: 0.6rem; }
h2 { border-top: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 0.5rem 0 0; }
p, ul { max-width: 46rem; }
p { margin: 0.5rem 0; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--front); outline-offset: 2px; }
.study, .hint { color: var(--muted); margin: 0; }
.hint { font-size: 0.9rem; }
.note {
  background: var(--note); border-left: 4px solid var(--note-edge); padding: 0.6rem 0.9rem;
  margin: 1rem 0; max-width: 60rem; font-weight: 600;
}
.plain { padding-left: 1.1rem; margin: 0.6rem 0; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; padding: 0; list-style: none; }
figure { margin: 0.6rem 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.pair { gap: 0.5rem 2rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0.15rem 1.2rem; list-style: none; padding: 0; }
.legend { margin: 0.4rem 0; max-width: none; font-size: 0.88rem; }
.legend svg { width: 22px; height: 14px; vertical-align: -2px; margin-right: 0.35rem; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; font-size: 0.88rem; }
table { width: 100%; overflow-wrap: normal; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); padding: 0.3rem 0; }
caption span { display: block; max-width: min(46rem, 100vw - 2.5rem); }
th, td { text-align: left; vertical-align: top; padding: 0.4rem 1.1rem 0.4rem 0; }
th, td { border-bottom: 1px solid var(--grid); }
thead th { font-weight: 600; border-bottom: 2px solid var(--line); vertical-align: bottom; }
thead .number { white-space: normal; }
tbody th { font-weight: 600; min-width: 9rem; }
th:first-child { position: sticky; left: 0; background: var(--surface); }
th[scope="rowgroup"] { position: static; padding-top: 1.1rem; color: var(--muted); }
.number { text-align: right; white-space: nowrap; }
small { display: block; color: var(--muted); font-weight: normal; }
.said { min-width: 11rem; }
.uses { white-space: nowrap; }
.words { min-width: 20rem; }
.mark { color: var(--seeded); }
details { margin: 0.6rem 0; }
summary { cursor: pointer; font-weight: 600; padding: 0.3rem 0; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: 0.3rem 1.4rem; }
dt { color: var(--muted); }
dd { margin: 0; max-width: 60rem; }
.parcoords .axis :is(path, line) { stroke: var(--line) !important; }
@media (max-width: 40rem) {
  body { font-size: 15px; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 0.6rem; }
  tbody th { min-width: 6.5rem; }
}
@media print { nav { display: none; } .scroll { overflow: visible; } }
"""

SCRIPT = """
(() => {
  "use strict";
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const canvas = document.createElement("canvas").getContext("2d");
  const escaped = t => t.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // Colours come as var(--name), in fields that are named for colours.
  function coloured(value, look, isColour) {
    if (typeof value === "string") {
      const name = isColour && /^var\\((--[a-z-]+)\\)$/.exec(value);
      return name ? look.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map(v => coloured(v, look, isColour));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(
      ([key, v]) => [key, coloured(v, look, isColour || /colou?r/.test(key))]));
  }

  const covered = (a, b) =>
    Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) *
    Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const grown = (b, by) => [b[0] - by, b[1] - by, b[2] + by, b[3] + by];
  const inside = ([x, y], b) => x > b[0] && x < b[2] && y > b[1] && y < b[3];
  const lies = (points, b) => 25 * points.filter(p => inside(p, b)).length;
  const around = (x, y, r) => [x - r, y - r, x + r, y + r];

  // Annotations for the labels: each as near to its point as it can be without lying on a mark,
  // a line or another label.
  function annotations(plot, layout, width) {
    const m = layout.margin, [x0, x1] = layout.xaxis.range, [y0, y1] = layout.yaxis.range;
    const inner = width - m.l - m.r, tall = plot.height - m.t - m.b;
    const [d0, d1] = layout.yaxis.domain;
    const scale = v => layout.xaxis.type === "log" ? Math.log10(v) : v;
    const px = x => m.l + (scale(x) - x0) / (x1 - x0) * inner;
    const py = y => m.t + tall * (1 - d0 - (y - y0) / (y1 - y0) * (d1 - d0));
    const frame = [m.l + 2, m.t, width - m.r - 2, py(y0)];
    const marks = [], faint = [];
    for (const trace of plot.data) {
      if (trace.yaxis === "y2") continue;
      const points = trace.x.map((x, k) => [px(x), py(trace.y[k])]);
      if (trace.mode === "markers") {
        points.forEach(([x, y], k) => {
          marks.push(around(x, y, trace.marker.size / 2 + 1));
          if (trace.error_y) {
            const high = py(trace.y[k] + trace.error_y.array[k]);
            const low = py(trace.y[k] - trace.error_y.arrayminus[k]);
            faint.push([x - 1, high, x + 1, low]);
          }
        });
      } else {
        for (let k = 1; k < points.length; k++) {
          const [[ax, ay], [bx, by]] = [points[k - 1], points[k]];
          const [top, bottom] = [Math.min(ay, by), Math.max(ay, by)];
          faint.push([ax, ay - 2, bx, ay + 2], [bx - 2, top, bx + 2, bottom]);
        }
      }
    }
    for (const l of plot.labels) if (l.line) faint.push([m.l, py(l.y) - 1, width, py(l.y) + 1]);
    const size = 11.5, high = 16;
    canvas.font = `${size}px system-ui, sans-serif`;
    const items = plot.labels.map(label => {
      const wide = canvas.measureText(label.text).width + 6, spots = [];
      const y = py(label.y);
      const box = (cx, cy, cost, lead = []) => {
        const half = wide / 2;
        spots.push({cx, cy, cost, lead, box: [cx - half, cy - high / 2, cx + half, cy + high / 2]});
      };
      if (label.line) {
        for (let k = 0; k <= 12; k++) {
          const cx = frame[2] - wide / 2 - k / 12 * (frame[2] - frame[0] - wide);
          box(cx, y - 9, k);
          box(cx, y + 10, k + 1);
        }
      } else {
        const x = px(label.x);
        for (let r = 16; r <= 190; r += 9) for (let a = 0; a < 24; a++) {
          const c = Math.cos(a * Math.PI / 12), s = Math.sin(a * Math.PI / 12);
          const [cx, cy] = [x + c * (r + wide / 2 - 6), y - s * r], lead = [];
          for (let f = 0.25; f < 1; f += 0.15) lead.push([x + f * (cx - x), y + f * (cy - y)]);
          box(cx, cy, r + r * r / 90 + 3 * Math.abs(s), lead);
        }
      }
      const own = label.line ? null : around(px(label.x), y, 7);
      return {label, spots, own, at: null};
    });
    for (let pass = 0; pass < 4; pass++) for (const item of items) {
      const others = items.filter(i => i !== item && i.at).map(i => i.at.box);
      let least = Infinity;
      for (const spot of item.spots) {
        const [l, t, r, b] = spot.box;
        let cost = spot.cost;
        cost += 50 * (Math.max(0, frame[0] - l) + Math.max(0, r - frame[2]));
        cost += 50 * (Math.max(0, frame[1] - t) + Math.max(0, b - frame[3]));
        for (const o of others) cost += 20 * covered(spot.box, grown(o, 3)) + lies(spot.lead, o);
        for (const o of marks) cost += 4 * covered(spot.box, o);
        for (const o of faint) cost += 0.15 * covered(spot.box, o);
        // Nearer to another named mark than to its own, it would be read as that one's.
        for (const i of items) if (i !== item && i.own) {
          cost += 0.5 * covered(spot.box, grown(i.own, 12)) + lies(spot.lead, i.own);
          if (i.at) cost += lies(i.at.lead, spot.box);
        }
        if (cost < least) { least = cost; item.at = spot; }
      }
    }
    return items.map(({label, at}) => ({
      text: escaped(label.text), font: {size, color: label.color}, borderpad: 0,
      bgcolor: "var(--surface)",
      ...(label.line
        ? {xref: "paper", x: (at.cx - m.l) / inner, y: label.y, xanchor: "center",
           yshift: py(label.y) - at.cy, yanchor: "middle", showarrow: false}
        : {x: scale(label.x), y: label.y, ax: at.cx - px(label.x), ay: at.cy - py(label.y),
           showarrow: true, arrowhead: 0, arrowwidth: 1, arrowcolor: label.color, standoff: 6}),
    }));
  }

  function draw(plot) {
    const div = document.getElementById(plot.key);
    if (plot.webgl && !document.createElement("canvas").getContext("webgl")) {
      div.textContent = "This plot needs WebGL, which this browser does not offer.";
      return;
    }
    const width = Math.max(plot.minWidth, div.parentElement.clientWidth);
    const small = innerWidth < 640;  // there, a finger on a plot moves the page
    const layout = {...plot.layout, width, height: plot.height, dragmode: small ? false : "zoom"};
    if (plot.labels.length)
      layout.annotations = [...(layout.annotations || []), ...annotations(plot, layout, width)];
    const look = getComputedStyle(document.documentElement);
    Plotly.react(div, coloured(plot.data, look), coloured(layout, look), {
      displaylogo: false,
      displayModeBar: small || plot.still ? false : "hover",
      // Only these: plotly's own choice has one that sends the data away.
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
      showSendToCloud: false,
      plotlyServerURL: "",
      toImageButtonOptions: {format: "svg", filename: plot.key},
    });
    div.dataset.drawn = width;
  }

  const redraw = () => plots.forEach(draw);
  redraw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let width = innerWidth, later = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(later);
    later = setTimeout(redraw, 150);
  });
})();
"""
