// Designs of the page: facts and drawings by key, and the dialog that shows one.
const designs = (() => {
  "use strict";
  let data, order = [], at = new Map();
  const dialog = document.getElementById("design"), part = name => dialog.querySelector(name);
  const NS = "http://www.w3.org/2000/svg";

  const facts = ([, , , , told]) =>
    Array.from({length: told.length / 2}, (_, k) => [told[2 * k], told[2 * k + 1]].map(w => data.words[w]));

  function element(name, attributes, text) {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function shape([kind, style, ...rest]) {
    if (kind === "line") return element("path", {class: style, d: rest[0]});
    const [x, y, width, height] = rest;
    return kind === "box" ? element("rect", {class: style, x, y, width, height, rx: 2})
      : element("text", {class: style, x, y}, rest[2]);
  }

  function drawing([, label, height, shapes]) {
    const svg = element("svg", {
      xmlns: NS, viewBox: `0 0 ${data.width} ${height}`, width: data.width, height,
      class: "drawing", role: "img", "aria-label": `Drawing of ${label}`,
    });
    svg.append(...shapes.map(k => shape(data.shapes[k])));
    return svg;
  }

  // The data of thousands of designs are long, so they come compressed.
  async function unpack() {
    const packed = JSON.parse(document.getElementById("data").textContent);
    const bytes = Uint8Array.from(atob(packed), c => c.charCodeAt(0));
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    data = await new Response(plain).json();
    order = data.designs.map(d => d[0]);
    at = new Map(order.map((key, k) => [key, k]));
    follow();
  }

  // A few lines about a design beside the pointer.
  const tip = document.getElementById("tip");
  function point(key, {clientX, clientY}) {
    if (!at.has(key)) return;
    const design = data.designs[at.get(key)], told = facts(design);
    const lines = [...told.slice(0, 5), ...told.slice(5).slice(-1)].map(([t, v]) => `${t}: ${v}`);
    tip.textContent = [design[1], ...lines].join("\n");
    tip.hidden = false;
    const left = Math.min(clientX + 14, innerWidth - tip.offsetWidth - 8);
    const below = clientY + 14 + tip.offsetHeight < innerHeight;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${below ? clientY + 14 : Math.max(4, clientY - 14 - tip.offsetHeight)}px`;
  }
  const leave = () => { tip.hidden = true; };

  function show(key) {
    const k = at.get(key), design = data.designs[k];
    part("h2").textContent = design[1];
    const none = document.createElement("p");
    none.textContent = "No drawing: the design of this row is not stored.";
    part("figure").replaceChildren(design[2] ? drawing(design) : none);
    part("dl").replaceChildren(...facts(design).flatMap(([term, value]) => {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = term;
      dd.textContent = value;
      return [dt, dd];
    }));
    part("[name=before]").disabled = k === 0;
    part("[name=after]").disabled = k === order.length - 1;
    part("[name=save]").disabled = !design[2];
    dialog.dataset.key = key;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  const open = key => { location.hash = `design-${encodeURIComponent(key)}`; };
  const step = by => {
    const key = order[at.get(dialog.dataset.key) + by];
    if (key !== undefined) open(key);
  };
  function follow() {
    let key = "";
    try {
      if (location.hash.startsWith("#design-")) key = decodeURIComponent(location.hash.slice(8));
    } catch { /* not one of the page's own links */ }
    if (at.has(key)) show(key);
    else if (dialog.open) dialog.close();
  }

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // The drawing as a file: with the rules of the style sheet and the colours of the look at hand.
  function saveDrawing() {
    const svg = part("svg").cloneNode(true), look = getComputedStyle(document.documentElement);
    const sheet = document.querySelector("style").textContent;
    const rules = /\/\* drawing \*\/([^]*)\/\* end of drawing \*\//.exec(sheet)[1];
    const names = [...new Set(sheet.match(/--[a-z-]+(?=:)/g))].filter(name => name !== "--own");
    const colours = names.map(name => `${name}:${look.getPropertyValue(name)}`).join(";");
    const style = element("style", {}, `svg{${colours};background:var(--surface)}${rules}`);
    svg.prepend(style);
    const text = new XMLSerializer().serializeToString(svg);
    save(new Blob([text], {type: "image/svg+xml"}), `design-${dialog.dataset.key}.svg`);
  }

  part("[name=before]").addEventListener("click", () => step(-1));
  part("[name=after]").addEventListener("click", () => step(1));
  part("[name=save]").addEventListener("click", saveDrawing);
  part("[name=close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", event => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("close", () => {
    if (location.hash.startsWith("#design-")) history.replaceState(null, "", "#");
  });
  addEventListener("hashchange", follow);
  const asked = document.getElementById("asked");
  asked?.addEventListener("change", () => {
    if (at.has(asked.value)) open(asked.value);
  });
  document.getElementById("save-csv")?.addEventListener("click", event =>
    save(new Blob([data.csv], {type: "text/csv"}), event.target.dataset.file));
  unpack();
  return {open, point, leave};
})();
