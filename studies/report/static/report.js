(() => {
  "use strict";
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const canvas = document.createElement("canvas").getContext("2d");
  const escaped = t => t.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // Colours come as var(--name), in fields that are named for colours.
  function coloured(value, look, isColour) {
    if (typeof value === "string") {
      const name = isColour && /^var\((--[a-z-]+)\)$/.exec(value);
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
    const width = Math.max(plot.minWidth, printing || div.parentElement.clientWidth);
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
    if (!div.dataset.drawn && typeof designs === "object") {
      const key = ({data: {customdata, meta}, pointNumber}) => (customdata || meta || [])[pointNumber];
      div.on("plotly_click", event => {
        designs.leave();
        if (key(event.points[0]) !== undefined) designs.open(key(event.points[0]));
      });
      div.on("plotly_hover", ({points: [first], event}) => {
        if (first.data.customdata) designs.point(key(first), event);
      });
      div.on("plotly_unhover", designs.leave);
    }
    div.dataset.drawn = width;
  }

  // One plot after the other, so that the first is seen before the last is drawn.
  let printing = 0, round = 0;
  function redraw() {
    const own = ++round, rest = [...plots];
    const next = () => {
      if (own !== round || !rest.length) return;
      draw(rest.shift());
      setTimeout(next);
    };
    next();
  }
  redraw();
  addEventListener("beforeprint", () => { round++; printing = 680; plots.forEach(draw); });
  addEventListener("afterprint", () => { printing = 0; redraw(); });
  for (const button of document.querySelectorAll("button[data-format]"))
    button.addEventListener("click", () => {
      const {format, plot, file} = button.dataset, div = document.getElementById(plot);
      Plotly.downloadImage(div, {
        format, filename: file, width: Number(div.dataset.drawn), height: div.clientHeight,
        scale: format === "png" ? 2 : 1,
      });
    });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let width = innerWidth, later = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(later);
    later = setTimeout(redraw, 150);
  });
})();
