// Bytes over time, by group, with births and deaths: of a recording. Two sliders choose a part of it,
// and so does dragging over the picture.

const BAR_HEIGHT = 64;

class Timeline {
  constructor(app) {
    this.app = app;
    const { history } = app.data;
    if (!history || history.points.length < 2) {
      this.element = el(
        "p",
        { class: "empty" },
        history
          ? "The recording has one sample, so nothing is known over time."
          : "This page was made from one answer, so nothing is known over time. " +
              "lsbuf record FILE and lsbuf report PAGE --from FILE make one that has it.",
      );
      return;
    }
    this.history = history;
    this.last = history.points.length - 1;
    // Groups of one kind differ in their tone.
    const same = new Map();
    this.tones = history.groups.map(({ kind }) => {
      same.set(kind, (same.get(kind) ?? -1) + 1);
      return `tone${same.get(kind) % 4}`;
    });
    this.from = 0;
    this.until = this.last;
    this.picture = svg("svg", {
      class: "time",
      role: "img",
      "aria-label": "Bytes by group over time, and births and deaths. The table below has the same.",
    });
    const slider = (label, value) =>
      el("input", {
        type: "range",
        min: 0,
        max: this.last,
        value,
        "aria-label": label,
        input: () => this.slide(),
      });
    this.sliders = [slider("From", 0), slider("Until", this.last)];
    this.span = el("output", { class: "span" });
    this.legend = el("ul", { class: "keys" });
    this.same = lazyTable(() => this.table());
    const whole_ = el("button", { type: "button", click: () => this.range(0, this.last) }, "Whole time");
    this.element = el(
      "div",
      { class: "view" },
      el("div", { class: "frame" }, this.picture),
      this.legend,
      el(
        "div",
        { class: "bar" },
        el("label", null, "From ", this.sliders[0]),
        el("label", null, "Until ", this.sliders[1]),
        whole_,
        this.span,
      ),
      el("p", { class: "hint" }, madeOf(history)),
      this.same.element,
    );
    this.drag();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.picture.parentNode ?? this.picture);
  }

  show() {
    if (this.history) this.draw();
  }

  slide() {
    const [a, b] = this.sliders.map((slider) => Number(slider.value));
    this.range(Math.min(a, b), Math.max(a, b));
  }

  range(from, until) {
    if (until - from < 1) return;
    [this.from, this.until] = [from, until];
    [this.sliders[0].value, this.sliders[1].value] = [from, until];
    this.draw();
  }

  drag() {
    let begin = null;
    const at = (event) => {
      const box = this.picture.getBoundingClientRect();
      const part = (event.clientX - box.left - this.margin) / Math.max(1, box.width - this.margin);
      const times = this.history.points;
      const time = times[this.from] + Math.min(Math.max(part, 0), 1) * (times[this.until] - times[this.from]);
      return nearest(times, time);
    };
    this.picture.addEventListener("pointerdown", (event) => {
      begin = at(event);
      this.picture.setPointerCapture(event.pointerId);
    });
    this.picture.addEventListener("pointerup", (event) => {
      const end = at(event);
      if (begin !== null && Math.abs(end - begin) >= 2)
        this.range(Math.min(begin, end), Math.max(begin, end));
      begin = null;
    });
  }

  draw() {
    const width = this.picture.parentNode?.clientWidth || 0;
    if (width === 0) return;
    const { points, groups, births, deaths } = this.history;
    const [from, until] = [this.from, this.until];
    this.margin = 52;
    const tall = Math.round(Math.max(220, Math.min(560, window.innerHeight * 0.34)));
    const height = tall + BAR_HEIGHT + 42;
    const time = points.slice(from, until + 1);
    const length = Math.max(1, time.at(-1) - time[0]);
    const x = (t) => this.margin + ((t - time[0]) / length) * (width - this.margin - 8);
    const sums = time.map((_, nth) => groups.reduce((sum, group) => sum + group.bytes[from + nth], 0));
    const top = Math.max(1, ...sums);
    const y = (bytes) => 8 + (1 - bytes / top) * (tall - 8);
    const parts = [];
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      parts.push(
        svg("line", {
          class: "rule",
          x1: this.margin,
          x2: width - 8,
          y1: y(top * share),
          y2: y(top * share),
        }),
        svg("text", { x: this.margin - 6, y: y(top * share) + 4, "text-anchor": "end" }, size(top * share)),
      );
    }
    let base = time.map(() => 0);
    groups.forEach((group, nth) => {
      const next = base.map((below, k) => below + group.bytes[from + k]);
      const upper = next.map((bytes, k) => `${x(time[k]).toFixed(1)},${y(bytes).toFixed(1)}`);
      const lower = base.map((bytes, k) => `${x(time[k]).toFixed(1)},${y(bytes).toFixed(1)}`).reverse();
      parts.push(
        svg("polygon", {
          class: `band ${this.tones[nth]}`,
          "data-kind": group.kind,
          points: [...upper, ...lower].join(" "),
        }),
      );
      base = next;
    });
    const middle = tall + 14 + BAR_HEIGHT / 2;
    const most = Math.max(1, ...births.slice(from, until + 1), ...deaths.slice(from, until + 1));
    const bar = Math.max(1, Math.min(10, (width - this.margin - 8) / time.length - 1));
    time.forEach((t, k) => {
      const [up, down] = [
        (births[from + k] / most) * (BAR_HEIGHT / 2 - 2),
        (deaths[from + k] / most) * (BAR_HEIGHT / 2 - 2),
      ];
      if (up > 0)
        parts.push(
          svg("rect", { class: "birth", x: x(t) - bar / 2, y: middle - up, width: bar, height: up }),
        );
      if (down > 0)
        parts.push(svg("rect", { class: "death", x: x(t) - bar / 2, y: middle, width: bar, height: down }));
    });
    parts.push(
      svg("line", { class: "rule", x1: this.margin, x2: width - 8, y1: middle, y2: middle }),
      svg("text", { x: this.margin - 6, y: middle - 8, "text-anchor": "end" }, "born"),
      svg("text", { x: this.margin - 6, y: middle + 16, "text-anchor": "end" }, "died"),
    );
    const ticks = Math.max(2, Math.min(8, Math.floor(width / 170)));
    for (let nth = 0; nth < ticks; nth += 1) {
      const t = time[0] + (length * nth) / (ticks - 1);
      parts.push(
        svg(
          "text",
          {
            x: x(t),
            y: height - 6,
            "text-anchor": nth === 0 ? "start" : nth === ticks - 1 ? "end" : "middle",
          },
          clock(t, length),
        ),
      );
    }
    fill(this.picture, { viewBox: `0 0 ${width} ${height}`, width, height }, []);
    this.picture.replaceChildren(...parts);
    this.span.value = `${day(time[0])} to ${day(time.at(-1))} UTC, ${lasting(length / 1000)}`;
    this.drawLegend();
    this.same.refresh();
  }

  drawLegend() {
    const bytes = (group, at) => size(group.bytes[at]);
    this.legend.replaceChildren(
      ...this.history.groups.map((group, nth) =>
        el(
          "li",
          null,
          el("span", { class: `swatch ${this.tones[nth]}`, "data-kind": group.kind, "aria-hidden": "true" }),
          bdi(groupTitle(group)),
          ` ${bytes(group, this.from)} → ${bytes(group, this.until)}`,
        ),
      ),
    );
  }

  /** At most 40 points of the chosen time, with what was born and died since the one before. */
  table() {
    const { points, groups, births, deaths } = this.history;
    const [from, until] = [this.from, this.until];
    const step = Math.ceil((until - from + 1) / 40);
    const rows = [];
    for (
      let at = from, before = from;
      at <= until;
      before = at, at = at < until ? Math.min(at + step, until) : until + 1
    ) {
      const since = (numbers) => numbers.slice(before + 1, at + 1).reduce((sum, n) => sum + n, 0);
      const sum = groups.reduce((sum, group) => sum + group.bytes[at], 0);
      const figures = [size(sum), whole(since(births)), whole(since(deaths))];
      rows.push([day(points[at]), ...figures, ...groups.map((group) => size(group.bytes[at]))]);
    }
    const titles = ["Bytes", "Born", "Died", ...groups.map(groupTitle)];
    const heads = [{ title: "Time" }, ...titles.map((title) => ({ title, right: true }))];
    return plainTable("Bytes over time (UTC)", heads, rows);
  }
}

/** What the picture is made of, and what it cannot tell. */
function madeOf(history) {
  const { samples, partial_samples: partial, unknown_costs: unknown } = history;
  return [
    `Made of ${counted(samples, "sample", "samples")}.`,
    partial > 0 ? `${whole(partial)} of them are partial: what was not seen counts as not there.` : "",
    unknown > 0
      ? `${counted(unknown, "buffer", "buffers")} of unknown cost ${unknown === 1 ? "has" : "have"} no bytes here.`
      : "",
    "What two buffers have in common counts twice. What lives and dies between two samples is not seen.",
    "The filter does not choose here.",
  ]
    .filter((text) => text !== "")
    .join(" ");
}

function groupTitle(group) {
  return group.other
    ? "others"
    : group.exporter === null || group.exporter === undefined
      ? group.kind
      : `${group.kind} ${named(group, "exporter")}`;
}

function nearest(times, time) {
  let best = 0;
  times.forEach((t, nth) => {
    if (Math.abs(t - time) < Math.abs(times[best] - time)) best = nth;
  });
  return best;
}

function day(ms) {
  return new Date(ms).toISOString().slice(0, 19).replace("T", " ");
}

function clock(ms, length) {
  return length > 2 * 86400e3 ? day(ms).slice(5, 16) : day(ms).slice(11, length > 600e3 ? 16 : 19);
}
