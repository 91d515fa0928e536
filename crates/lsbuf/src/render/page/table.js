// A table of any length: only the rows in sight are elements. Headers sort, arrows move, and columns
// that do not fit are left out, the least important first.

const ROW_HEIGHT = 28;

/** Order of two cells: unknown last, numbers largest first, text from A to Z. */
function orderOf(column) {
  const { value, text } = column;
  if (value) {
    return (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (typeof x === "number" && typeof y === "number") return y - x;
      return (typeof x === "number" ? 0 : 1) - (typeof y === "number" ? 0 : 1);
    };
  }
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  return (a, b) => compare(text(a), text(b));
}

/**
 * A virtual table. A column has a title, its least width, its importance, `text(row)`, and for
 * numbers `value(row)`. `open(row)` is called when a row is chosen. `elsewhere` says where columns are
 * that do not fit.
 */
class VirtualTable {
  constructor(label, columns, sortedBy, open, elsewhere) {
    this.elsewhere = elsewhere;
    this.columns = columns;
    this.by = columns.find((column) => column.title === sortedBy) || columns[0];
    this.falling = false;
    this.open = open;
    this.all = [];
    this.rows = [];
    this.orders = new Map();
    this.at = 0;
    this.head = el("div", { role: "row", class: "head", "aria-rowindex": 1 });
    this.body = el("div", { role: "rowgroup", class: "body" });
    this.empty = el("p", { class: "empty", hidden: true }, "Nothing passes the filter.");
    this.grid = el(
      "div",
      { role: "grid", "aria-label": label, class: "grid", "aria-readonly": "true" },
      el("div", { role: "rowgroup", class: "heads" }, this.head),
      this.body,
    );
    this.left = el("p", { class: "hint", hidden: true });
    this.element = el("div", { class: "table" }, this.grid, this.empty, this.left);
    this.grid.addEventListener("scroll", () => this.draw(), { passive: true });
    this.body.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => {
      const line = event.target.closest("[role=row]");
      if (line) this.choose(Number(line.dataset.nth));
    });
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this.grid);
  }

  /** All rows there are; their orders are computed once each, when asked for. */
  hold(all) {
    this.all = all;
    this.orders.clear();
  }

  /** Shows these of the rows. */
  show(rows) {
    let order = this.orders.get(this.by);
    if (!order) this.orders.set(this.by, (order = [...this.all].sort(orderOf(this.by))));
    if (rows.length === this.all.length) this.rows = order;
    else {
      const wanted = new Set(rows);
      this.rows = order.filter((row) => wanted.has(row));
    }
    if (this.falling) this.rows = this.rows.toReversed();
    this.shown = rows;
    this.at = 0;
    this.grid.scrollTop = 0;
    this.empty.hidden = rows.length > 0;
    this.grid.setAttribute("aria-rowcount", rows.length + 1);
    this.body.style.height = `${rows.length * ROW_HEIGHT}px`;
    this.draw();
  }

  sort(column) {
    this.falling = this.by === column && !this.falling;
    this.by = column;
    this.show(this.shown);
    this.heads();
  }

  /** Chooses the columns that fit, and shares out the width that is left. */
  fit() {
    const width = this.grid.clientWidth;
    if (width === 0 || width === this.width) return;
    this.width = width;
    const ranked = [...this.columns].sort((a, b) => a.rank - b.rank);
    let sum = 0;
    const fits = new Set(ranked.filter((column, nth) => (sum += column.width) <= width || nth < 2));
    this.visible = this.columns.filter((column) => fits.has(column));
    const tracks = this.visible.map(
      (column) => `minmax(0, ${column.grow ? `${column.width * column.grow}fr` : `${column.width}px`})`,
    );
    this.grid.style.setProperty("--tracks", tracks.join(" "));
    this.grid.setAttribute("aria-colcount", this.columns.length);
    const missing = this.columns.length - this.visible.length;
    this.left.hidden = missing === 0;
    this.left.textContent =
      missing === 0
        ? ""
        : `${counted(missing, "column does", "columns do")} not fit: ${this.columns
            .filter((column) => !fits.has(column))
            .map((column) => column.title)
            .join(", ")}. ${this.elsewhere}`;
    this.heads();
    this.body.replaceChildren();
    this.lines = [];
    this.draw();
  }

  heads() {
    if (!this.visible) return;
    const focused = this.head.contains(document.activeElement) ? document.activeElement.dataset.title : null;
    this.head.replaceChildren(
      ...this.visible.map((column) => {
        const sorted = this.by === column;
        const upwards = Boolean(column.value) === this.falling;
        return el(
          "div",
          {
            role: "columnheader",
            class: column.value ? "right" : null,
            "aria-colindex": this.columns.indexOf(column) + 1,
            "aria-sort": sorted ? (upwards ? "ascending" : "descending") : "none",
          },
          el(
            "button",
            {
              type: "button",
              title: column.about,
              "data-title": column.title,
              click: () => this.sort(column),
            },
            column.title,
            el("span", { class: "arrow", "aria-hidden": "true" }, sorted ? (upwards ? "▲" : "▼") : ""),
          ),
        );
      }),
    );
    if (focused) this.head.querySelector(`[data-title="${focused}"]`)?.focus();
  }

  /** Fills the lines that are in sight, and makes new ones only if there are too few. */
  draw() {
    if (!this.visible) return;
    const { scrollTop, clientHeight } = this.grid;
    const first = Math.max(0, Math.floor(scrollTop / ROW_HEIGHT) - 4);
    const last = Math.min(this.rows.length, Math.ceil((scrollTop + clientHeight) / ROW_HEIGHT) + 4);
    while (this.lines.length < last - first) {
      const cells = this.visible.map((column) =>
        el(
          "div",
          {
            role: "gridcell",
            class: column.value ? "right" : null,
            "aria-colindex": this.columns.indexOf(column) + 1,
          },
          el("bdi", null, ""),
        ),
      );
      const line = el("div", { role: "row", tabindex: -1 }, ...cells);
      this.lines.push(line);
      this.body.append(line);
    }
    this.lines.forEach((line, nth) => {
      const at = first + nth;
      line.hidden = at >= last;
      if (line.hidden) return;
      const row = this.rows[at];
      line.dataset.nth = at;
      line.setAttribute("aria-rowindex", at + 2);
      line.tabIndex = at === this.at ? 0 : -1;
      line.style.transform = `translateY(${at * ROW_HEIGHT}px)`;
      this.visible.forEach((column, nth) => {
        const text = column.text(row);
        const cell = line.childNodes[nth].firstChild;
        if (cell.firstChild.data !== text) {
          cell.firstChild.data = text;
          line.childNodes[nth].title = text.length > 12 ? text : "";
        }
        cell.className = text === "?" ? "unknown" : "";
      });
    });
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.grid.clientHeight / ROW_HEIGHT) - 2);
    const steps = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -Infinity,
      End: Infinity,
    };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") this.choose(this.at);
    else if (event.key in steps)
      this.move(Math.min(Math.max(this.at + steps[event.key], 0), this.rows.length - 1));
    else return;
    event.preventDefault();
  }

  move(to) {
    this.at = to;
    const head = this.head.offsetHeight;
    const top = to * ROW_HEIGHT;
    const { scrollTop, clientHeight } = this.grid;
    if (top < scrollTop) this.grid.scrollTop = top;
    else if (top + ROW_HEIGHT + head > scrollTop + clientHeight)
      this.grid.scrollTop = top + ROW_HEIGHT + head - clientHeight;
    this.draw();
    this.body.querySelector(`[data-nth="${to}"]:not([hidden])`)?.focus({ preventScroll: true });
  }

  choose(nth) {
    this.at = nth;
    this.draw();
    if (this.rows[nth]) this.open(this.rows[nth]);
  }
}

/** The kernel's references as one cell: `~` is an estimate, `?` unknown. */
function residual(buffer) {
  if (!buffer.refs || buffer.refs.kernel === null) return buffer.refs ? "?" : "-";
  return (buffer.estimate ? "~" : "") + buffer.refs.kernel;
}

function originOf(buffer) {
  const { origin } = buffer;
  if (!origin || origin.state === "unknown") return "?";
  return origin.state === "before" ? "before" : `${named(origin, "command")}:${number(origin.pid)}`;
}

function bufferColumns(data) {
  const refs = (key) => (row) => row.buffer.refs?.[key];
  const count = (key) => ({
    value: refs(key),
    text: (row) => (row.buffer.refs ? number(refs(key)(row)) : "-"),
  });
  const columns = [
    { title: "KIND", width: 84, rank: 3, about: "Kind of memory", text: (row) => row.buffer.kind },
    {
      title: "INO",
      width: 92,
      rank: 9,
      about: "Inode number, or the id of a segment",
      value: (row) => row.buffer.ino,
      text: (row) => number(row.buffer.ino),
    },
    {
      title: "SIZE",
      width: 72,
      rank: 6,
      about: "Length of the buffer",
      value: (row) => row.buffer.size,
      text: (row) => size(row.buffer.size),
    },
    {
      title: "COST",
      width: 72,
      rank: 1,
      about: "What is charged where there is a charge, else the size",
      value: (row) => row.cost,
      text: (row) => size(row.cost),
    },
    { title: "FD", width: 56, rank: 8, about: "Slots of distinct fd tables", ...count("fd") },
    { title: "MAP", width: 60, rank: 7, about: "Mappings of distinct address spaces", ...count("map") },
    {
      title: "KERNEL",
      width: 84,
      rank: 5,
      about: "References that no process explains; ~ is an estimate",
      value: refs("kernel"),
      text: (row) => residual(row.buffer),
    },
    {
      title: "COUNT",
      width: 76,
      rank: 10,
      about: "References that the kernel counts",
      value: (row) => row.buffer.count,
      text: (row) => (row.isFile ? "-" : number(row.buffer.count)),
    },
    {
      title: "SHAPE",
      width: 92,
      rank: 11,
      about: "What it would be as a leak",
      text: (row) => row.shape || "-",
    },
    {
      title: "EXPORTER",
      width: 100,
      rank: 12,
      about: "Heap or driver of a dma-buf",
      text: (row) => row.exporter ?? "-",
    },
    {
      title: "NAME",
      width: 110,
      rank: 2,
      grow: 1.6,
      about: "Name or path as its holder sees it",
      text: (row) => row.name || "—",
    },
    {
      title: "HOLDERS",
      width: 100,
      rank: 4,
      grow: 1.6,
      about: "Commands of the processes that hold it",
      text: (row) => row.holders || "-",
    },
  ];
  if (data.hasOrigins)
    columns.push({
      title: "ORIGIN",
      width: 130,
      rank: 13,
      grow: 1,
      about: "Who made it",
      text: (row) => originOf(row.buffer),
    });
  const isEmpty = (column) => data.rows.every((row) => column.text(row) === "-");
  return columns.filter((column) => !["SHAPE", "EXPORTER"].includes(column.title) || !isEmpty(column));
}

function processColumns() {
  const figure = (title, key, rank, about) => ({
    title,
    width: 76,
    rank,
    about,
    value: (row) => row[key],
    text: (row) => size(row[key]),
  });
  const count = (title, key, rank, about) => ({
    title,
    width: 84,
    rank,
    about,
    value: (row) => row[key],
    text: (row) => number(row[key]),
  });
  return [
    {
      title: "PID",
      width: 76,
      rank: 3,
      about: "Process id",
      value: (row) => -row.pid,
      text: (row) => number(row.pid),
    },
    {
      title: "COMMAND",
      width: 120,
      rank: 1,
      grow: 1,
      about: "Command name",
      text: (row) => named(row, "comm"),
    },
    figure("PSS", "pss", 2, "Its part: each cost divided by the number of holders"),
    figure("RSS", "rss", 4, "The whole cost of all that it holds"),
    figure("USS", "uss", 5, "What its exit would free"),
    figure("MAPPED", "mapped_pss", 10, "Each cost divided by mapped bytes"),
    count("BUFFERS", "buffers", 6, "Distinct buffers"),
    count("FDS", "fds", 7, "Its fds of buffers"),
    count("MAPS", "maps", 8, "Its mappings of buffers"),
    count("SYNCS", "sync_files", 11, "Its fds of sync_files"),
    {
      title: "CGROUP",
      width: 150,
      rank: 9,
      grow: 1.4,
      about: "Its cgroup",
      text: (row) => named(row, "cgroup"),
    },
  ];
}
