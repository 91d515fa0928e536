// Who made the buffers, and by which calls: a row for each depth, from the command inwards. The width
// is the cost. A choice widens what it stands for; calls that are too narrow to be seen are summed up.

const LEVEL_HEIGHT = 24;
const LEAST_WIDTH = 3;
const DEEPEST = 64;

/** A name as a frame, which cannot pass for a frame of lsbuf's own, or for one of the kernel. */
function frame(name) {
  return name.replace(/^\[/, "\\x5b").replace(/_\[k\]$/, "_\\x5bk]");
}

/** The frames of a row, outermost first; what is not known has a frame that says so. */
function framesOf(row) {
  const { origin } = row.buffer;
  if (!origin || origin.state === "unknown") return ["[unknown]"];
  if (origin.state === "before") return ["[before the recorder]"];
  const frames = [frame(named(origin, "command"))];
  const { stack } = origin;
  if (!stack) return [...frames, "[stack not read]"];
  if (stack.user_end === "truncated") frames.push("[truncated]");
  if (stack.user_end === "unreadable") frames.push("[unreadable]");
  for (const call of stack.user.toReversed()) {
    if (call.functions.length === 0) {
      const where = call.module === null ? visible(call.build_id ?? "") : named(call, "module");
      frames.push(call.address ?? `${where}+0x${Number(call.offset ?? 0).toString(16)}`);
    } else {
      for (const one of call.functions.toReversed()) frames.push(frame(named(one, "name")));
    }
  }
  for (const call of stack.kernel.toReversed()) frames.push(`${named(call, "function")}_[k]`);
  return frames.slice(0, DEEPEST);
}

/** A call: what is made by it, and by what it calls in turn. */
function node(name, parent) {
  return { name, parent, children: new Map(), cost: 0, count: 0, unknown: 0 };
}

/** The tree of all calls. It is made once; each row knows its innermost call. */
class CallTree {
  constructor(rows) {
    this.root = node("all", null);
    this.nodes = [this.root];
    for (const row of rows) {
      let at = this.root;
      for (const name of framesOf(row)) {
        let next = at.children.get(name);
        if (!next) {
          next = node(name, at);
          at.children.set(name, next);
          this.nodes.push(next);
        }
        at = next;
      }
      row.call = at;
    }
  }

  /** Counts these rows and no others. A call stands behind its caller in the list. */
  count(rows) {
    for (const one of this.nodes) [one.cost, one.count, one.unknown] = [0, 0, 0];
    for (const { call, cost } of rows) {
      call.cost += cost || 0;
      call.count += 1;
      call.unknown += cost === null ? 1 : 0;
    }
    for (let nth = this.nodes.length - 1; nth > 0; nth -= 1) {
      const { parent, cost, count, unknown } = this.nodes[nth];
      parent.cost += cost;
      parent.count += count;
      parent.unknown += unknown;
    }
  }
}

/** The rows that were made by one of these calls. */
function rowsOf(rows, calls) {
  const wanted = new Set(calls);
  const isBelow = (call) => {
    for (let at = call; at; at = at.parent) if (wanted.has(at)) return true;
    return false;
  };
  return rows.filter((row) => isBelow(row.call));
}

class Icicle {
  constructor(app) {
    this.app = app;
    if (!app.data.hasOrigins) {
      this.element = el(
        "p",
        { class: "empty" },
        "The data have no origins. lsbuf probes install --origins starts the flight recorder, " +
          "which remembers who makes buffers from then on.",
      );
      return;
    }
    this.trail = el("nav", { class: "trail", "aria-label": "Where in the stacks" });
    this.area = el("div", {
      class: "icicle",
      role: "group",
      "aria-label": "Stacks by cost, from the command inwards. Arrows move, Enter widens, Escape goes out.",
    });
    this.unknown = el("p", { class: "hint" });
    this.same = lazyTable(() => this.table());
    this.list = el("button", {
      type: "button",
      click: () => this.app.list(this.focus.name, rowsOf(this.rows, [this.focus])),
    });
    this.element = el(
      "div",
      { class: "view" },
      el("div", { class: "bar" }, this.trail, this.list),
      this.area,
      this.unknown,
      this.same.element,
    );
    roving(this.area, "[data-level]", (key, from) => this.step(key, from));
    this.area.addEventListener("click", (event) => event.target.closest("[data-level]")?.open());
    hints(this.area);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.area);
  }

  show(rows) {
    if (!this.area) return;
    this.rows = rows;
    this.tree ??= new CallTree(this.app.data.rows);
    this.tree.count(rows);
    this.focus ??= this.tree.root;
    this.draw();
  }

  step(key, from) {
    const level = Number(from.dataset.level);
    const all = Array.from(this.area.querySelectorAll("[data-level]"));
    const siblings = all.filter((cell) => Number(cell.dataset.level) === level);
    switch (key) {
      case "ArrowRight":
        return siblings[siblings.indexOf(from) + 1] || null;
      case "ArrowLeft":
        return siblings[siblings.indexOf(from) - 1] || null;
      case "ArrowDown":
        return all.find((cell) => cell.node?.parent === from.node) || null;
      case "ArrowUp":
        return all.find((cell) => cell.node === from.node?.parent) || null;
      case "Enter":
      case " ":
        from.open();
        return null;
      case "Escape":
        if (!this.focus.parent) return undefined;
        this.widen(this.focus.parent);
        return null;
    }
    return undefined;
  }

  widen(node) {
    this.focus = node;
    this.draw();
    this.area.querySelector("[data-level]")?.focus();
  }

  draw() {
    const width = this.area.clientWidth;
    if (!this.tree || width === 0) return;
    const cells = document.createDocumentFragment();
    let deepest = 0;
    const put = (node, x, width, level) => {
      deepest = Math.max(deepest, level);
      const label = `${node.name}: ${size(node.cost)}, ${counted(node.count, "buffer", "buffers")}`;
      const tone = node.name.endsWith("_[k]")
        ? "in-kernel"
        : node.name.startsWith("[")
          ? "gap"
          : "in-program";
      const cell = el("div", {
        role: "button",
        tabindex: -1,
        "data-level": level,
        class: `cell call ${tone}`,
        "aria-label": label,
      });
      if (width > 30) cell.append(el("bdi", { class: "label" }, `${node.name} ${size(node.cost)}`));
      place(cell, x, level * LEVEL_HEIGHT, width - 1, LEVEL_HEIGHT - 1);
      cell.node = node;
      cell.open = () => this.widen(node === this.focus && node.parent ? node.parent : node);
      cells.append(cell);
      let at = x;
      const narrow = [];
      let narrowWidth = 0;
      for (const child of called(node)) {
        const wide = node.cost > 0 ? (child.cost / node.cost) * width : 0;
        if (wide >= LEAST_WIDTH) {
          put(child, at, wide, level + 1);
          at += wide;
        } else {
          narrow.push(child);
          narrowWidth += wide;
        }
      }
      if (narrowWidth >= LEAST_WIDTH) {
        const what = `${counted(narrow.length, "narrower call", "narrower calls")}`;
        const rest = el("div", {
          role: "button",
          tabindex: -1,
          "data-level": level + 1,
          class: "cell call gap",
          "aria-label": `${what}, ${size(narrow.reduce((sum, child) => sum + child.cost, 0))} together: lists their buffers`,
        });
        place(rest, at, (level + 1) * LEVEL_HEIGHT, narrowWidth - 1, LEVEL_HEIGHT - 1);
        if (narrowWidth > 30) rest.append(el("bdi", { class: "label" }, what));
        rest.open = () => this.app.list(what, rowsOf(this.rows, narrow));
        cells.append(rest);
        deepest = Math.max(deepest, level + 1);
      }
    };
    put(this.focus, 0, width, 0);
    this.area.replaceChildren(cells);
    this.area.style.height = `${(deepest + 1) * LEVEL_HEIGHT}px`;
    const first = this.area.querySelector("[data-level]");
    if (first) first.tabIndex = 0;
    const { unknown, count } = this.focus;
    this.list.textContent = `List ${counted(count, "buffer", "buffers")}`;
    this.trail.replaceChildren(
      ...trailOf(this.focus).flatMap((node, nth) => [
        nth > 0 ? el("span", { "aria-hidden": "true" }, " › ") : "",
        el(
          "button",
          {
            type: "button",
            "aria-current": node === this.focus ? "true" : null,
            click: () => this.widen(node),
          },
          bdi(node.name),
        ),
      ]),
    );
    this.unknown.textContent =
      unknown > 0 ? `${counted(unknown, "buffer has", "buffers have")} an unknown cost and no width.` : "";
    this.same.refresh();
  }

  /** The calls of the one that is widened. */
  table() {
    const calls = called(this.focus);
    const rows = calls.slice(0, 100).map((node) => [bdi(node.name), size(node.cost), whole(node.count)]);
    const heads = [{ title: "Call" }, { title: "Cost", right: true }, { title: "Buffers", right: true }];
    return plainTable(`What ${this.focus.name} calls`, heads, rows);
  }
}

function trailOf(node) {
  const trail = [];
  for (let at = node; at; at = at.parent) trail.unshift(at);
  return trail;
}

/** What a call calls, as far as it was counted, the largest first. */
function called(node) {
  return Array.from(node.children.values())
    .filter((child) => child.count > 0)
    .sort((a, b) => b.cost - a.cost);
}
