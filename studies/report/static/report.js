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

  // How much of a box some boxes cover, each for itself, to the pixel: asked of thousands of boxes
  // for thousands of places, so it is added up once (a summed-area table).
  function coverage(boxes, width, height) {
    const wide = Math.ceil(width) + 1, high = Math.ceil(height) + 1, sums = new Float64Array(wide * high);
    const column = x => Math.max(0, Math.min(wide - 1, Math.round(x)));
    const row = y => Math.max(0, Math.min(high - 1, Math.round(y)));
    for (const [l, t, r, b] of boxes) {
      const [x0, y0, x1, y1] = [column(l), row(t), column(r), row(b)];
      if (x1 <= x0 || y1 <= y0) continue;
      sums[y0 * wide + x0]++;
      sums[y0 * wide + x1]--;
      sums[y1 * wide + x0]--;
      sums[y1 * wide + x1]++;
    }
    // Twice: from corners to how many cover each pixel, and from those to sums.
    for (let pass = 0; pass < 2; pass++) {
      for (let y = 0; y < high; y++) for (let x = 1; x < wide; x++)
        sums[y * wide + x] += sums[y * wide + x - 1];
      for (let k = wide; k < sums.length; k++) sums[k] += sums[k - wide];
    }
    const before = (x, y) => x < 0 || y < 0 ? 0 : sums[y * wide + x];
    return ([l, t, r, b]) => {
      const [x0, y0, x1, y1] = [column(l) - 1, row(t) - 1, column(r) - 1, row(b) - 1];
      return before(x1, y1) - before(x0, y1) - before(x1, y0) + before(x0, y0);
    };
  }

  // From the values of a plot to pixels, and the frame that its marks lie in.
  function placed(plot, layout, width) {
    const m = layout.margin, [x0, x1] = layout.xaxis.range, [y0, y1] = layout.yaxis.range;
    const inner = width - m.l - m.r, tall = plot.height - m.t - m.b;
    const [d0, d1] = layout.yaxis.domain;
    const scale = v => layout.xaxis.type === "log" ? Math.log10(v) : v;
    const px = x => m.l + (scale(x) - x0) / (x1 - x0) * inner;
    const py = y => m.t + tall * (1 - d0 - (y - y0) / (y1 - y0) * (d1 - d0));
    return {m, inner, tall, scale, px, py, frame: [m.l + 2, m.t, width - m.r - 2, py(y0)]};
  }

  // Annotations for the labels: each as near to its point as it can be without lying on a mark,
  // a line or another label.
  function annotations(plot, layout, width) {
    const {m, inner, scale, px, py, frame} = placed(plot, layout, width);
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
    const overMarks = coverage(marks, width, plot.height), overLines = coverage(faint, width, plot.height);
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
        cost += 4 * overMarks(spot.box) + 0.15 * overLines(spot.box);
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

  // About six round numbers in a range.
  function ticks(low, high) {
    const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find(each => each * power >= rough), found = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(Number((k * step).toPrecision(12)));
    return found;
  }

  const SYMBOLS = {
    "circle": (c, r) => c.arc(0, 0, r, 0, 7),
    "square": (c, r) => c.rect(-r, -r, 2 * r, 2 * r),
    "diamond": (c, r) => [[0, -r], [r, 0], [0, r], [-r, 0]].forEach(p => c.lineTo(...p.map(v => 1.3 * v))),
    "triangle-up": (c, r) => [[0, -r], [r, r], [-r, r]].forEach(p => c.lineTo(...p)),
  };

  // The front at once, on a canvas: plotly takes seconds to start. It has no labels and no hover.
  function sketch(plot) {
    const div = document.getElementById(plot.key), canvas = document.createElement("canvas");
    const width = div.parentElement.clientWidth, layout = plot.layout, ratio = devicePixelRatio || 1;
    const look = getComputedStyle(document.documentElement), c = canvas.getContext("2d");
    const colour = name => coloured(name, look, true);
    const {m, inner, tall, px, py} = placed(plot, layout, width), below = m.t + tall;
    Object.assign(canvas, {className: "sketch", width: width * ratio, height: plot.height * ratio});
    canvas.style.cssText = `display: block; width: ${width}px; height: ${plot.height}px`;
    c.scale(ratio, ratio);
    const line = (points, style, wide, dash = []) => {
      c.beginPath();
      points.forEach(p => c.lineTo(...p));
      Object.assign(c, {strokeStyle: colour(style), lineWidth: wide});
      c.setLineDash(dash);
      c.stroke();
    };
    const write = (text, x, y, align, base) => {
      Object.assign(c, {font: "12px system-ui, sans-serif", textAlign: align, textBaseline: base});
      c.fillStyle = colour("var(--ink)");
      c.fillText(text, x, y);
    };
    const {tickvals, ticktext} = layout.xaxis;
    const [x0, x1] = layout.xaxis.range, [y0, y1] = layout.yaxis.range;
    (tickvals || ticks(x0, x1)).forEach((value, k) => {
      const x = px(value);
      if (x < m.l || x > m.l + inner) return;
      line([[x, m.t], [x, below]], "var(--grid)", 1);
      write(tickvals ? ticktext[k] : String(value), x, below + 4, "center", "top");
    });
    for (const value of ticks(y0, y1)) {
      line([[m.l, py(value)], [m.l + inner, py(value)]], "var(--grid)", 1);
      write(String(value), m.l - 4, py(value), "right", "middle");
    }
    write(layout.xaxis.title.text, m.l + inner / 2, plot.height - 14, "center", "alphabetic");
    c.save();
    c.translate(14, m.t + tall / 2);
    c.rotate(-Math.PI / 2);
    write(layout.yaxis.title.text, 0, 0, "center", "alphabetic");
    c.restore();
    c.save();
    c.beginPath();
    c.rect(m.l, m.t, inner, tall);
    c.clip();
    for (const shape of layout.shapes || []) {
      const [{color, width: wide}, across] = [shape.line, shape.y0 === shape.y1 && shape.yref === "y"];
      if (across) line([[m.l, py(shape.y0)], [m.l + inner, py(shape.y0)]], color, wide, [2, 3]);
      else if (shape.xref === "x") line([[px(shape.x0), m.t], [px(shape.x0), below]], color, wide, [6, 4]);
    }
    for (const trace of plot.data) {
      const onRug = trace.yaxis === "y2", [r0, r1] = onRug ? layout.yaxis2.domain : [0, 0];
      const at = trace.x.map((x, k) => [px(x), onRug ? below - tall * (r0 + r1) / 2 : py(trace.y[k])]);
      if (trace.mode !== "markers") {
        const steps = at.flatMap(([x, y], k) => k ? [[x, at[k - 1][1]], [x, y]] : [[x, y]]);
        line(steps, trace.line.color, trace.line.width, trace.line.dash === "dot" ? [2, 3] : []);
        continue;
      }
      const {symbol, size, color} = trace.marker, shape = SYMBOLS[symbol];
      if (trace.error_y) at.forEach(([x], k) => {
        const {array, arrayminus} = trace.error_y;
        line([[x, py(trace.y[k] + array[k])], [x, py(trace.y[k] - arrayminus[k])]], trace.error_y.color, 1);
      });
      Object.assign(c, {fillStyle: colour(color), strokeStyle: colour("var(--surface)"), lineWidth: 1});
      c.setLineDash([]);
      for (const [x, y] of at) {
        if (!shape) {
          line([[x, y - size / 2], [x, y + size / 2]], color, 2);
          continue;
        }
        c.save();
        c.translate(x, y);
        c.beginPath();
        shape(c, size / 2);
        c.closePath();
        c.fill();
        c.stroke();
        c.restore();
      }
    }
    c.restore();
    div.append(canvas);
    div.dataset.sketched = width;
  }

  // plotly stands in the page as text, so that nothing waits for it but what it draws.
  let started = false;
  function start() {
    if (started) return;
    started = true;
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.append(script);
  }

  function draw(plot) {
    start();
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
    for (const canvas of div.querySelectorAll("canvas.sketch")) canvas.remove();
    div.dataset.drawn = width;
  }

  // A plot is drawn when it is about to be seen, one after the other, so that the page can be used
  // meanwhile.
  let printing = 0, drawing = false;
  const waiting = [];
  const near = new IntersectionObserver(entries => {
    for (const {isIntersecting, target} of entries) if (isIntersecting) {
      near.unobserve(target);
      waiting.push(plots.find(plot => plot.key === target.id));
    }
    if (waiting.length && !drawing) setTimeout(drawNext);
    drawing ||= waiting.length > 0;
  }, {rootMargin: "400px 0px"});
  function drawNext() {
    if (waiting.length) draw(waiting.shift());
    drawing = waiting.length > 0;
    if (drawing) setTimeout(drawNext);
  }
  function redraw() {
    near.disconnect();
    waiting.length = 0;
    for (const plot of plots) near.observe(document.getElementById(plot.key));
  }
  for (const plot of plots) document.getElementById(plot.key).style.minHeight = `${plot.height}px`;
  const front = plots.find(plot => plot.key === "plot-front");
  if (front) sketch(front);
  // After the next frame; a page that is not shown has none.
  let begun = false;
  const begin = () => {
    if (!begun) redraw();
    begun = true;
  };
  requestAnimationFrame(() => setTimeout(begin));
  setTimeout(begin, 1000);
  addEventListener("beforeprint", () => { near.disconnect(); printing = 680; plots.forEach(draw); });
  addEventListener("afterprint", () => { printing = 0; redraw(); });
  for (const button of document.querySelectorAll("button[data-format]"))
    button.addEventListener("click", () => {
      const {format, plot, file} = button.dataset, div = document.getElementById(plot);
      if (!div.dataset.drawn) draw(plots.find(each => each.key === plot));
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
