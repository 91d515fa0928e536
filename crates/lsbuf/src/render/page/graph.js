// Who shares with whom: commands at the left, and at the right what the same set of them shares. A
// line is a holding; its width grows with the bytes. Each set of buffers is there once.

const MOST_SETS = 24;

class Graph {
  constructor(app) {
    this.app = app;
    this.lines = svg("svg", { class: "lines", "aria-hidden": "true" });
    this.left = el("ul", { class: "side", "aria-label": "Commands that share" });
    this.right = el("ul", { class: "side", "aria-label": "What they share" });
    this.hint = el("p", { class: "hint" });
    this.graph = el("div", { class: "graph" }, this.left, this.lines, this.right);
    this.element = el(
      "div",
      { class: "view" },
      el(
        "p",
        { class: "hint" },
        "Buffers that several processes hold, by who holds them. A choice at either side lists its buffers.",
      ),
      this.graph,
      this.hint,
    );
    for (const name of ["focusin", "mouseover"])
      this.graph.addEventListener(name, (event) => this.light(event.target.closest("[data-end]")));
    for (const name of ["focusout", "mouseleave"]) this.graph.addEventListener(name, () => this.light(null));
    this.observer = new ResizeObserver(() => this.drawLines());
    this.observer.observe(this.graph);
  }

  show(rows) {
    const shared = rows.filter((row) => row.pids.length > 1);
    const sets = grouped(shared, (row) => row.holders);
    const shown = sets.slice(0, MOST_SETS);
    const left = new Map();
    for (const set of shown) {
      for (const command of set.rows[0].commands) {
        if (!left.has(command)) left.set(command, { name: command, rows: [], cost: 0 });
        const one = left.get(command);
        one.rows.push(...set.rows);
        one.cost += set.cost;
      }
    }
    const commands = Array.from(left.values()).sort((a, b) => b.cost - a.cost);
    this.left.replaceChildren(
      ...commands.map((one, nth) =>
        this.end(`l${nth}`, one.name, one, () => this.app.list(`shared by ${one.name}`, one.rows)),
      ),
    );
    this.right.replaceChildren(
      ...shown.map((set, nth) => {
        const [row] = set.rows;
        const what =
          set.rows.length === 1
            ? `${row.buffer.kind} ${row.name || number(row.buffer.ino)}`
            : `${counted(set.rows.length, "buffer", "buffers")} of ${set.name}`;
        return this.end(`r${nth}`, what, set, () =>
          set.rows.length === 1 ? this.app.open(row) : this.app.list(set.name, set.rows),
        );
      }),
    );
    const places = new Map(commands.map((one, nth) => [one.name, nth]));
    const most = Math.max(1, ...shown.map((set) => set.cost));
    this.edges = shown.flatMap((set, nth) =>
      set.rows[0].commands.map((command) => ({
        from: `l${places.get(command)}`,
        to: `r${nth}`,
        width: 1 + 9 * Math.sqrt(set.cost / most),
      })),
    );
    this.graph.hidden = shown.length === 0;
    this.hint.textContent =
      shown.length === 0
        ? "No buffer here is held by several processes."
        : sets.length > shown.length
          ? `These are the ${shown.length} sets of holders with most bytes, of ${whole(sets.length)}; ` +
            `${costText(sets.slice(shown.length).flatMap((set) => set.rows))} in the others. The filter narrows them.`
          : "";
    this.drawLines();
  }

  end(id, text, { rows }, open) {
    return el(
      "li",
      null,
      el(
        "button",
        { type: "button", "data-end": id, title: text, click: open },
        el("bdi", { class: "label" }, text),
        el("span", { class: "figure" }, `${costFigure(rows)} · ${whole(rows.length)}`),
      ),
    );
  }

  drawLines() {
    if (!this.edges || this.graph.clientWidth === 0) return;
    const box = this.lines.getBoundingClientRect();
    this.lines.setAttribute("viewBox", `0 0 ${box.width} ${Math.max(1, box.height)}`);
    const middle = (id) => {
      const end = this.graph.querySelector(`[data-end="${id}"]`).getBoundingClientRect();
      return end.top + end.height / 2 - box.top;
    };
    this.lines.replaceChildren(
      ...this.edges.map(({ from, to, width }) => {
        const [y1, y2, bend] = [middle(from), middle(to), box.width / 2];
        return svg("path", {
          d: `M0 ${y1} C${bend} ${y1} ${bend} ${y2} ${box.width} ${y2}`,
          "stroke-width": width.toFixed(1),
          "data-from": from,
          "data-to": to,
        });
      }),
    );
  }

  light(end) {
    const id = end?.dataset.end;
    this.graph.classList.toggle("lit", Boolean(id));
    for (const line of this.lines.children)
      line.classList.toggle("on", line.dataset.from === id || line.dataset.to === id);
  }
}
