// A map of cost: areas are bytes. A kind has areas of exporters or holders, and these have buffers. A
// buffer is drawn once; if several processes hold it, it is hatched. What is too small to be seen is
// summed up in one area that says how many it has.

const LEAST_AREA = 280;
const MOST_AREAS = 600;
const MOST_CELLS = 240;

/** How long after the first drawing, or a key, buffers are drawn; kinds and groups are at once. */
const PAUSE = 150;

/** Squarified areas of weights that fall, in a rectangle: as square as they can be, in order. */
function squarify(weights, x, y, width, height) {
  const places = [];
  let sum = weights.reduce((all, weight) => all + weight, 0);
  let at = 0;
  while (at < weights.length && sum > 0) {
    const side = Math.min(width, height);
    const scale = (width * height) / sum;
    let strip = 0;
    let worst = Infinity;
    let end = at;
    while (end < weights.length) {
      const next = strip + weights[end];
      const thick = (next * scale) / side;
      const [long, short] = [(weights[at] * scale) / thick, (weights[end] * scale) / thick];
      const ratio = Math.max(long / thick, thick / Math.max(short, 1e-9));
      if (ratio > worst && end > at) break;
      worst = ratio;
      strip = next;
      end += 1;
    }
    const thick = side > 0 ? (strip * scale) / side : 0;
    let along = 0;
    for (; at < end; at += 1) {
      const length = thick > 0 ? (weights[at] * scale) / thick : 0;
      if (width >= height) places.push([x, y + along, thick, length]);
      else places.push([x + along, y, length, thick]);
      along += length;
    }
    if (width >= height) [x, width] = [x + thick, Math.max(0, width - thick)];
    else [y, height] = [y + thick, Math.max(0, height - thick)];
    sum -= strip;
  }
  while (places.length < weights.length) places.push([x, y, 0, 0]);
  return places;
}

/** Areas for what is large enough of things with costs that fall, and one for the rest together. */
function laidOut(things, [x, y, width, height], leastArea) {
  const sum = things.reduce((all, thing) => all + thing.cost, 0);
  const least = (leastArea * sum) / (width * height);
  let end = things.findIndex((thing, nth) => nth >= MOST_CELLS || thing.cost < least);
  if (end < 0 || end === things.length - 1) end = things.length;
  const many = things.slice(end);
  const rest = { cost: many.reduce((all, thing) => all + thing.cost, 0) };
  const order = [...things.slice(0, end), ...(many.length > 0 ? [rest] : [])].sort((a, b) => b.cost - a.cost);
  const places = squarify(
    order.map((thing) => thing.cost),
    x,
    y,
    width,
    height,
  );
  const shown = order.map((thing, nth) => [thing, places[nth]]).filter(([thing]) => thing !== rest);
  return { shown, many, rest: places[order.indexOf(rest)] };
}

class Treemap {
  constructor(app) {
    this.app = app;
    this.path = [];
    this.rows = [];
    this.by = "exporter";
    this.trail = el("nav", { class: "trail", "aria-label": "Where in the map" });
    this.area = el("div", {
      class: "map",
      role: "group",
      "aria-label":
        "Map of cost. Arrows left and right: neighbours, down: into, up: out of, Enter: open. " +
        "The table below has the same.",
    });
    this.rest = el("p", { class: "hint" });
    this.listed = [];
    this.same = lazyTable(() => this.table());
    const choice = el(
      "select",
      {
        change: () => {
          this.by = choice.value;
          this.path = this.path.slice(0, 1);
          this.draw();
        },
      },
      el("option", { value: "exporter" }, "exporter or holders"),
      el("option", { value: "holder" }, "holders"),
      el("option", { value: "name" }, "name"),
    );
    this.element = el(
      "div",
      { class: "view" },
      el("div", { class: "bar" }, this.trail, el("label", null, "Within a kind by ", choice)),
      this.area,
      el(
        "p",
        { class: "legend" },
        el("span", { class: "swatch hatched", "data-kind": "dmabuf", "aria-hidden": "true" }),
        " held by several processes, drawn once",
      ),
      this.rest,
      this.same.element,
    );
    roving(this.area, "[data-level]", (key, from) => this.step(key, from));
    this.area.addEventListener("click", (event) => {
      const cell = event.target.closest("[data-level]");
      if (cell) cell.open();
    });
    hints(this.area);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.area);
  }

  groupName(row) {
    if (this.by === "name") return folded(row.name);
    if (this.by === "exporter" && row.buffer.kind === "dmabuf") return row.exporter ?? "exporter unknown";
    return together(row.commands);
  }

  show(rows, haste) {
    this.rows = rows;
    this.coarse = haste;
    clearTimeout(this.later);
    if (haste) {
      this.later = setTimeout(() => {
        this.coarse = false;
        this.draw();
      }, PAUSE);
    }
    this.draw();
  }

  step(key, from) {
    const level = Number(from.dataset.level);
    const of = (wanted) => Array.from(this.area.querySelectorAll(`[data-level="${wanted}"]`));
    const all = Array.from(this.area.querySelectorAll("[data-level]"));
    const siblings = of(level);
    switch (key) {
      case "ArrowRight":
        return siblings[siblings.indexOf(from) + 1] || null;
      case "ArrowLeft":
        return siblings[siblings.indexOf(from) - 1] || null;
      case "Home":
        return siblings[0];
      case "End":
        return siblings.at(-1);
      case "ArrowDown": {
        const next = all[all.indexOf(from) + 1];
        return next && Number(next.dataset.level) > level ? next : null;
      }
      case "ArrowUp":
        return all.slice(0, all.indexOf(from)).findLast((cell) => Number(cell.dataset.level) < level) || null;
      case "Enter":
      case " ":
        from.open();
        return null;
      case "Escape":
        if (this.path.length === 0) return undefined;
        this.zoom(this.path.slice(0, -1));
        return null;
    }
    return undefined;
  }

  zoom(path) {
    this.path = path;
    this.draw();
    const first = this.area.querySelector("[data-level]");
    if (first) first.focus();
  }

  draw() {
    const width = this.area.clientWidth;
    if (width === 0) return;
    const height = Math.round(Math.max(260, Math.min(width * 0.62, window.innerHeight * 0.62)));
    this.area.style.height = `${height}px`;
    this.least = Math.max(LEAST_AREA, (width * height) / MOST_AREAS);
    const known = this.rows.filter((row) => row.cost > 0);
    let kinds = grouped(known, (row) => row.buffer.kind);
    if (this.path[0]) kinds = kinds.filter((kind) => kind.name === this.path[0]);
    const cells = document.createDocumentFragment();
    const listed = [];
    const places = squarify(
      kinds.map((kind) => kind.cost),
      0,
      0,
      width,
      height,
    );
    kinds.forEach((kind, nth) => {
      let groups = grouped(kind.rows, (row) => this.groupName(row));
      if (this.path[1] !== undefined) groups = groups.filter((group) => group.name === this.path[1]);
      listed.push(...groups.map((group) => ({ kind, group })));
      this.drawKind(cells, kind, groups, places[nth]);
    });
    this.area.replaceChildren(cells);
    const first = this.area.querySelector("[data-level]");
    if (first) first.tabIndex = 0;
    else this.area.append(el("p", { class: "empty" }, "No buffer with a cost passes the filter."));
    this.drawTrail();
    const unknown = this.rows.filter((row) => row.cost === null).length;
    const nothing = this.rows.length - known.length - unknown;
    this.rest.textContent = [
      nothing > 0
        ? `${counted(nothing, "buffer costs", "buffers cost")} nothing and ${nothing === 1 ? "has" : "have"} no area.`
        : "",
      unknown > 0 ? `${counted(unknown, "buffer has", "buffers have")} an unknown cost and no area.` : "",
    ]
      .join(" ")
      .trim();
    this.listed = listed;
    this.same.refresh();
  }

  cell(level, kind, text, label, open, place_, extra) {
    const cell = document.createElement("div");
    cell.setAttribute("role", "button");
    cell.setAttribute("aria-label", label);
    cell.tabIndex = -1;
    cell.className = `cell ${extra}`;
    cell.dataset.level = level;
    cell.dataset.kind = kind;
    const [x, y, width, height] = place_;
    place(cell, x, y, width, height);
    if (width > 44 && height > 15) cell.append(el("bdi", { class: "label" }, text));
    cell.open = open;
    return cell;
  }

  drawKind(cells, kind, groups, [x, y, width, height]) {
    const label = `${kind.name}: ${size(kind.cost)}, ${counted(kind.rows.length, "buffer", "buffers")}`;
    const open = () => this.zoom(this.path.length === 0 ? [kind.name] : []);
    cells.append(
      this.cell(1, kind.name, `${kind.name} ${size(kind.cost)}`, label, open, [x, y, width, height], "kind"),
    );
    const head = width > 34 && height > 34 ? 18 : 1;
    const inner = [x + 2, y + head, width - 4, height - head - 2];
    if (inner[2] < 6 || inner[3] < 6) return;
    const { shown, many, rest } = laidOut(groups, inner, this.least);
    for (const [group, place] of shown) this.drawGroup(cells, kind.name, group, place);
    if (many.length > 0) {
      const rows = many.flatMap((group) => group.rows);
      this.drawMany(cells, 2, kind.name, counted(many.length, "small group", "small groups"), rows, rest);
    }
  }

  drawGroup(cells, kind, group, [x, y, width, height]) {
    const what = `${counted(group.rows.length, "buffer", "buffers")} of kind ${kind}`;
    const label = `${group.name}: ${size(group.cost)}, ${what}`;
    const zoomed = this.path[1] === group.name;
    const open = () =>
      group.rows.length === 1
        ? this.app.open(group.rows[0])
        : this.zoom(zoomed ? [kind] : [kind, group.name]);
    if (group.rows.length === 1) {
      const [row] = group.rows;
      cells.append(
        this.cell(
          2,
          kind,
          `${group.name} ${size(row.cost)}`,
          bufferLabel(row),
          open,
          [x, y, width - 1, height - 1],
          row.pids.length > 1 ? "buffer hatched" : "buffer",
        ),
      );
      return;
    }
    cells.append(
      this.cell(
        2,
        kind,
        `${group.name} ${size(group.cost)}`,
        label,
        open,
        [x, y, width - 1, height - 1],
        "group",
      ),
    );
    const head = width > 34 && height > 30 ? 16 : 1;
    const inner = [x + 1, y + head, width - 3, height - head - 2];
    if (this.coarse || inner[2] < 8 || inner[3] < 8) return;
    const { shown, many, rest } = laidOut(
      [...group.rows].sort((a, b) => b.cost - a.cost),
      inner,
      this.least,
    );
    for (const [row, [x, y, width, height]] of shown) {
      const open = () => this.app.open(row);
      cells.append(
        this.cell(
          3,
          kind,
          `${row.name || "—"} ${size(row.cost)}`,
          bufferLabel(row),
          open,
          [x, y, width - 1, height - 1],
          row.pids.length > 1 ? "buffer hatched" : "buffer",
        ),
      );
    }
    if (many.length > 0)
      this.drawMany(cells, 3, kind, counted(many.length, "smaller buffer", "smaller buffers"), many, rest);
  }

  /** One area for many. */
  drawMany(cells, level, kind, what, rows, [x, y, width, height]) {
    const label = `${what}, ${size(costs(rows).known)} together: lists them`;
    const open = () => this.app.list(what, rows);
    cells.append(this.cell(level, kind, what, label, open, [x, y, width - 1, height - 1], "buffer many"));
  }

  drawTrail() {
    const steps = [["all kinds", []], ...this.path.map((name, nth) => [name, this.path.slice(0, nth + 1)])];
    this.trail.replaceChildren(
      ...steps.flatMap(([name, path], nth) => [
        nth > 0 ? el("span", { "aria-hidden": "true" }, " › ") : "",
        el(
          "button",
          {
            type: "button",
            "aria-current": nth === steps.length - 1 ? "true" : null,
            click: () => this.zoom(path),
          },
          bdi(name),
        ),
      ]),
    );
  }

  /** The same as a table, for whoever does not see areas. */
  table() {
    const most = 200;
    const rows = this.listed
      .slice(0, most)
      .map(({ kind, group }) => [
        bdi(kind.name),
        bdi(group.name),
        size(group.cost),
        whole(group.rows.length),
        whole(group.rows.filter((row) => row.pids.length > 1).length),
      ]);
    const all = whole(this.listed.length);
    const caption =
      this.listed.length > most ? `The ${most} first of ${all} groups` : "The groups of the map";
    const heads = [
      { title: "Kind" },
      { title: "Group" },
      { title: "Cost", right: true },
      { title: "Buffers", right: true },
      { title: "Shared", right: true },
    ];
    return plainTable(caption, heads, rows);
  }
}

function bufferLabel(row) {
  const by = row.pids.length === 0 ? "held by no process" : `held by ${row.holders}`;
  return `${row.name || "unnamed"}, ${row.buffer.kind} ${number(row.buffer.ino)}: ${size(row.cost)}, ${by}`;
}
