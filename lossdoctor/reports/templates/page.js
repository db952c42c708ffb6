"use strict";
// What a page gains from a script: values under the pointer, zoom, findings and charts that point at each other.
// Values are read back from the paths that are drawn; nothing is fetched, stored or evaluated.
(() => {
  const SVG = "http://www.w3.org/2000/svg", TALL = 10000, TOP = 900, BOTTOM = 9700;
  const all = (root, what) => [...root.querySelectorAll(what)];
  const make = (name, parent, attributes) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return parent.appendChild(node);
  };
  const shown = (value) => {
    if (!Number.isFinite(value)) return String(value);
    const size = Math.abs(value);
    if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en-US");
    return size && (size < 1e-4 || size >= 1e6) ? value.toExponential(2).replace("e+", "e") : String(+value.toPrecision(4));
  };
  const points = (d) => {
    const found = [];
    let x = 0, y = 0;
    for (const [, letter, rest] of d.matchAll(/([Mml])([^Mmlh]*)/g)) {
      const [right, down] = rest.match(/-?\d+/g).map(Number);
      [x, y] = letter === "M" ? [right, down] : [x + right, y + down];
      found.push([x, y]);
    }
    return found;
  };
  const nearest = (sorted, x) => {
    let low = 0, high = sorted.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (sorted[middle][0] < x) low = middle; else high = middle;
    }
    return x - sorted[low][0] <= sorted[high][0] - x ? low : high;
  };

  class Panel {
    constructor(figure) {
      this.figure = figure;
      this.frame = figure.querySelector(".frame");
      this.output = figure.querySelector("output");
      this.low = +figure.dataset.low;
      this.high = +figure.dataset.high;
      this.log = "log" in figure.dataset;
      this.heat = figure.classList.contains("heat");
    }
    value(y) {
      const part = (BOTTOM - y) / (BOTTOM - TOP);
      if (!this.log) return this.low + part * (this.high - this.low);
      return this.low * (this.high / this.low) ** part;
    }
    read() {
      this.lines ??= all(this.figure, "path.line[data-label]").map((path) => ({
        label: path.dataset.label,
        points: points(path.getAttribute("d")),
        trend: path.classList.contains("faint") ? points(path.nextElementSibling.getAttribute("d")) : null,
        beyond: new Map((path.dataset.beyond || "").split(" ").filter(Boolean).map((pair) => pair.split(":"))),
        below: path.classList.contains("second"),
      })).filter((line) => line.points.length).sort((one, other) => one.below - other.below);
      return this.lines;
    }
    say(x, y, near) {
      if (!this.output) return;
      if (this.heat) {
        this.sayCell(x, y);
        return;
      }
      const lines = this.read();
      const said = lines.map((line) => (lines.length > 1 ? `${line.label} ` : "") + this.sayLine(line, x, near));
      this.output.textContent = said.join(", ");
    }
    sayLine(line, x, near) {
      const value = ([at, height]) => +(line.beyond.get(String(at)) ?? this.value(height));
      if (!line.trend) return shown(value(line.points[nearest(line.points, x)]));
      const place = nearest(line.points, x);
      const around = line.points.filter(([at], own) => Math.abs(own - place) <= 2 || Math.abs(at - x) <= near).map(value);
      const median = shown(this.value(line.trend[nearest(line.trend, x)][1]));
      return `${median} (${shown(Math.min(...around))} to ${shown(Math.max(...around))})`;
    }
    sayCell(x, y) {
      const edges = this.figure.dataset.edges.split(" ").map(Number);
      const rows = this.figure.dataset.cells.split(" "), bounds = this.figure.dataset.bounds.split(" ");
      const row = y === null ? -1 : Math.floor(y * rows.length);
      const column = edges.findIndex((edge, place) => x >= edge && x < (edges[place + 1] ?? -1));
      const cell = rows[row]?.[column];
      const words = {z: "exactly zero", x: "NaN or Inf", "-": "not recorded"};
      const name = all(this.figure, ".gutter text title")[row]?.textContent;
      this.output.textContent = cell === undefined ? "" : `${name}: ${words[cell] ?? `${bounds[+cell]} to ${bounds[+cell + 1]}`}`;
    }
  }

  class Charts {
    constructor(root) {
      this.root = root;
      this.first = +root.dataset.first;
      this.unit = +root.dataset.unit;
      this.width = +root.dataset.width;
      this.panels = all(root, "figure.panel").map((figure) => new Panel(figure));
      this.cursors = this.panels.map((panel) => make("line", panel.frame, {class: "cursor", y1: "0", y2: "100%", visibility: "hidden"}));
      this.reset = root.querySelector(".reset");
      root.querySelector(".help").hidden = false;
      this.axes = all(root, ".axis").map((axis) => ({axis, before: [...axis.childNodes], labelled: axis.querySelector("text") && !axis.closest(".epochs"), epochs: !!axis.closest(".epochs")}));
      this.range = [0, this.width];
      this.panels.forEach((panel) => this.listen(panel));
      this.reset.addEventListener("click", () => this.zoom(0, this.width));
    }
    at(frame, event) {
      const box = frame.getBoundingClientRect();
      const part = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
      return {x: this.range[0] + part * (this.range[1] - this.range[0]), y: (event.clientY - box.top) / box.height};
    }
    step(x) {
      const step = this.first + x * this.unit;
      return this.unit * this.width > 20 ? Math.round(step) : +step.toPrecision(4); // few steps may be parts of epochs
    }
    percent(x) { return 100 * (x - this.range[0]) / (this.range[1] - this.range[0]); }
    listen(panel) {
      const frame = panel.frame;
      let begin = null, box = null;
      frame.addEventListener("pointerdown", (event) => {
        if (event.pointerType === "touch" || event.button) return;
        begin = this.at(frame, event).x;
        frame.setPointerCapture(event.pointerId);
        event.preventDefault();
      });
      frame.addEventListener("pointermove", (event) => {
        const {x, y} = this.at(frame, event);
        this.hover(x, y, panel);
        if (begin === null) return;
        box ??= make("rect", frame, {class: "selection", y: "0", height: "100%"});
        const [left, right] = [Math.min(begin, x), Math.max(begin, x)].map((end) => this.percent(end));
        box.setAttribute("x", `${left}%`);
        box.setAttribute("width", `${right - left}%`);
      });
      const end = (event) => {
        if (begin === null) return;
        const {x} = this.at(frame, event), from = begin;
        box?.remove();
        begin = box = null;
        if (Math.abs(x - from) > 0.01 * (this.range[1] - this.range[0])) {
          this.zoom(Math.min(from, x), Math.max(from, x));
        } else {
          const hit = document.elementsFromPoint(event.clientX, event.clientY).find((node) => node.dataset?.finding);
          if (hit && frame.contains(hit)) reveal(hit.dataset.finding);
        }
      };
      frame.addEventListener("pointerup", end);
      frame.addEventListener("pointercancel", end);
      frame.addEventListener("pointerleave", () => { if (begin === null) this.leave(); });
      frame.addEventListener("dblclick", () => this.zoom(0, this.width));
    }
    hover(x, y, over) {
      this.panels.forEach((panel, place) => {
        const line = this.cursors[place];
        line.setAttribute("x1", `${this.percent(x)}%`);
        line.setAttribute("x2", `${this.percent(x)}%`);
        line.setAttribute("visibility", "visible");
        panel.say(x, panel === over ? y : null, 0.006 * (this.range[1] - this.range[0]));
        if (panel === over && panel.output && panel.output.textContent) {
          panel.output.textContent = `step ${this.step(x).toLocaleString("en-US")}: ${panel.output.textContent}`;
        }
      });
    }
    leave() {
      this.cursors.forEach((line) => line.setAttribute("visibility", "hidden"));
      this.panels.forEach((panel) => { if (panel.output) panel.output.textContent = ""; });
    }
    zoom(from, to) {
      const least = Math.min(this.width, Math.max(8, 4 / this.unit));
      if (to - from < least) [from, to] = [(from + to - least) / 2, (from + to + least) / 2];
      this.range = [Math.max(0, from), Math.min(this.width, to)];
      const whole = from <= 0 && to >= this.width;
      this.reset.hidden = whole;
      all(this.root, ".field").forEach((field) => field.setAttribute("viewBox", `${this.range[0]} 0 ${this.range[1] - this.range[0]} ${TALL}`));
      this.axes.forEach((one) => whole ? one.axis.replaceChildren(...one.before) : one.epochs || this.ticks(one));
      all(this.root, "[data-x]").forEach((node) => {
        let percent = this.percent(+node.dataset.x);
        if (node.classList.contains("name")) {
          if (this.percent(+node.dataset.end) > 0) percent = Math.max(percent, 0); // the onset is out of sight, not the finding
          const flip = percent > ("flip" in node.dataset ? 30 : 60);
          node.setAttribute("text-anchor", flip ? "end" : "start");
          node.setAttribute("dx", flip ? -6 : 6);
        }
        const names = node.tagName === "line" ? ["x1", "x2"] : ["x"];
        names.forEach((name) => node.setAttribute(name, `${percent}%`));
        node.setAttribute("visibility", percent >= -0.01 && percent <= 100.01 ? "visible" : "hidden");
      });
    }
    ticks({axis, labelled}) {
      const [from, to] = this.range.map((x) => this.first + x * this.unit);
      const rough = (to - from) / 6, power = 10 ** Math.floor(Math.log10(rough));
      const every = [1, 2, 5, 10].map((part) => part * power).find((width) => width >= rough);
      axis.replaceChildren();
      for (let step = Math.ceil(from / every) * every; step <= to; step += every) {
        const x = (step - this.first) / this.unit, percent = `${this.percent(x)}%`;
        make("line", axis, {"data-x": x, x1: percent, x2: percent, y1: "0", y2: "4"});
        if (labelled) make("text", axis, {"data-x": x, x: percent, y: "14", "text-anchor": "middle"}).textContent = shown(+step.toPrecision(9));
      }
    }
  }

  const charts = all(document, ".charts").map((root) => new Charts(root));
  const light = (names, on) => {
    const wanted = new Set(names.split(" "));
    charts.forEach(({root}) => {
      const hits = all(root, "[data-finding]").filter((node) => wanted.has(node.dataset.finding));
      hits.forEach((node) => node.classList.toggle("on", on));
      if (hits.length) root.classList.toggle("focus", on);
    });
  };
  const open = (node) => {
    for (let inside = node; inside; inside = inside.parentElement) if (inside.tagName === "DETAILS") inside.open = true;
  };
  const card = (name) => all(document, "article, .consequence").find((node) => node.dataset.finding.split(" ").includes(name));
  const reveal = (name) => {
    const target = card(name);
    if (!target) return;
    open(target);
    target.scrollIntoView({block: "nearest", behavior: "smooth"});
    target.focus({preventScroll: true});
    target.classList.add("lit");
    setTimeout(() => target.classList.remove("lit"), 1600);
  };
  all(document, "article[data-finding], .consequence[data-finding]").forEach((node) => {
    const own = (event) => event.target.closest("[data-finding]") === node;
    node.addEventListener("mouseover", (event) => own(event) && light(node.dataset.finding, true));
    node.addEventListener("mouseout", (event) => own(event) && light(node.dataset.finding, false));
    node.addEventListener("focusin", () => light(node.dataset.finding, true));
    node.addEventListener("focusout", () => light(node.dataset.finding, false));
  });
  const jump = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target) { open(target); target.scrollIntoView(); }
  };
  addEventListener("hashchange", jump);
  jump();
  let folded = [];
  addEventListener("beforeprint", () => { folded = all(document, "details:not([open])"); folded.forEach((node) => { node.open = true; }); });
  addEventListener("afterprint", () => folded.forEach((node) => { node.open = false; }));
  document.body.classList.add("script");
})();
