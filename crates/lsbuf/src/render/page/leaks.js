// Suspects: groups of buffers that are born and do not die, with the evidence. A suspect is no
// verdict.

const STATES = {
  growing: "a suspect: what is born stays",
  plateau: "hardly any are born or die",
  churn: "what is born dies",
  "too short": "nothing can be said yet",
};

/** A number with its sign. */
function signed(value, text) {
  return (value >= 0 ? "+" : "") + text;
}

/** A straight line through the numbers of a group, in words. */
function rateText(slope) {
  if (!slope) return "?";
  const { buffers_per_hour: buffers, bytes_per_hour: bytes, r2 } = slope;
  const grown = bytes === null ? "?" : signed(bytes, size(bytes));
  const fits = r2 === null ? "-" : r2.toFixed(2);
  return `${signed(buffers, buffers.toFixed(1))} buffers and ${grown} bytes in an hour, r² ${fits}`;
}

/** Who made the buffers of a group, and by which calls. */
function makerText(origin) {
  return named(origin, "command") + (origin.stack === null ? "" : `: ${named(origin, "stack")}`);
}

/** Numbers over time as a small line. */
function spark(values, label) {
  const [width, height] = [120, 26];
  const top = Math.max(1, ...values);
  const points = values.map((value, nth) =>
    [
      ((nth / Math.max(1, values.length - 1)) * (width - 4) + 2).toFixed(1),
      (height - 3 - (value / top) * (height - 6)).toFixed(1),
    ].join(),
  );
  return svg(
    "svg",
    { class: "spark", role: "img", "aria-label": label, viewBox: `0 0 ${width} ${height}`, width, height },
    svg("polyline", { points: points.join(" ") }),
  );
}

/** Of those born in each eighth of the time: how many are left. */
function cohortBars(cohorts) {
  const [width, height] = [98, 26];
  const top = Math.max(1, ...cohorts.map((cohort) => cohort.born));
  const bars = cohorts.flatMap(({ born, left }, nth) => [
    svg("rect", {
      class: "born",
      x: nth * 12 + 1,
      y: height - (born / top) * height,
      width: 10,
      height: (born / top) * height,
    }),
    svg("rect", {
      class: "left",
      x: nth * 12 + 1,
      y: height - (left / top) * height,
      width: 10,
      height: (left / top) * height,
    }),
  ]);
  const lefts = cohorts.map(({ born, left }) => `${left} of ${born}`);
  const label = `left of those born in each eighth of the time: ${lefts.join(", ")}`;
  return svg(
    "svg",
    { class: "cohorts", role: "img", "aria-label": label, viewBox: `0 0 ${width} ${height}`, width, height },
    svg("title", null, label),
    ...bars,
  );
}

class Leaks {
  constructor(app) {
    this.leaks = app.data.leaks;
    if (!this.leaks) {
      this.element = el(
        "p",
        { class: "empty" },
        "Suspects need time. lsbuf record FILE and lsbuf report PAGE --from FILE make a page that has " +
          "them; lsbuf leaks watches this machine for a minute.",
      );
      return;
    }
    const { leaks } = this;
    this.all = el("input", { type: "checkbox", change: () => this.draw() });
    this.box = el("div", { class: "suspects" });
    const states = [
      ["growing", leaks.states.growing],
      ["plateau", leaks.states.plateau],
      ["churn", leaks.states.churn],
      ["too short", leaks.states.too_short],
    ];
    const total = states.reduce((sum, [, n]) => sum + n, 0);
    this.element = el(
      "div",
      { class: "view" },
      el(
        "p",
        null,
        `${counted(leaks.samples, "sample", "samples")} in ${lasting(leaks.length_s)}, ` +
          `from ${moment(leaks.first_sample)} to ${moment(leaks.last_sample)}. ` +
          (leaks.partial_samples > 0
            ? `${whole(leaks.partial_samples)} are partial, so births and deaths may be wrong.`
            : ""),
      ),
      pairs(states.map(([state, n]) => [state, `${counted(n, "group", "groups")}: ${STATES[state]}`])),
      el("div", { class: "bar" }, el("label", null, this.all, " Groups that do not grow, too")),
      this.box,
      total > leaks.groups.length
        ? el(
            "p",
            { class: "hint" },
            `The page has the ${whole(leaks.groups.length)} worst of ${whole(total)} groups.`,
          )
        : null,
      this.syncs(),
    );
    this.all.checked = leaks.states.growing === 0;
  }

  show() {
    if (this.leaks) this.draw();
  }

  draw() {
    const groups = this.leaks.groups.filter((group) => this.all.checked || group.state === "growing");
    const most = 200;
    this.box.replaceChildren(...groups.slice(0, most).map((group) => this.suspect(group)));
    if (groups.length === 0) this.box.append(el("p", { class: "empty" }, "No group grows."));
    if (groups.length > most)
      this.box.append(
        el("p", { class: "hint" }, `${whole(groups.length - most)} more are in the data of this page.`),
      );
  }

  suspect(group) {
    return el(
      "article",
      { class: group.state === "growing" ? "growing" : null },
      el(
        "h3",
        null,
        el("span", { class: "state" }, group.state),
        " ",
        bdi(group.comm === null ? "held by no process" : named(group, "comm")),
        ` has ${group.kind} `,
        bdi(group.name === "" ? "without a name" : named(group, "name")),
      ),
      el(
        "div",
        { class: "evidence" },
        el(
          "figure",
          null,
          cohortBars(group.cohorts),
          el("figcaption", null, "left of those born, by eighths of the time"),
        ),
        el(
          "figure",
          null,
          spark(group.trend, `buffers over time: ${group.trend.join(", ")}`),
          el("figcaption", null, "buffers over time"),
        ),
        pairs([
          ["born, died, left", `${whole(group.born)}, ${whole(group.died)}, ${whole(group.left)}`],
          ["bytes left", exactly(group.bytes)],
          ["grows by", rateText(group.slope)],
          ["older, of these died", `${whole(group.older)}, ${whole(group.older_died)}`],
          ["oldest that is left", lasting(group.oldest_s)],
          ["restarts", group.restarts > 0 ? whole(group.restarts) : undefined],
          ["shape", group.leak_shape ?? undefined],
          ["exporter", group.exporter === null ? undefined : bdi(named(group, "exporter"))],
          ["cgroup", bdi(named(group, "cgroup"))],
          ["made by", group.origin ? bdi(makerText(group.origin)) : undefined],
        ]),
      ),
    );
  }

  syncs() {
    const rows = this.leaks.sync_files
      .slice(0, 100)
      .map((one) => [
        bdi(named(one, "comm")),
        bdi(named(one, "cgroup")),
        whole(one.first),
        whole(one.last),
        one.per_hour === null ? "?" : one.per_hour.toFixed(1),
        one.rising ? "rises" : "",
      ]);
    if (rows.length === 0) return null;
    return el(
      "div",
      null,
      el("h3", null, "sync_files"),
      plainTable(
        "Numbers of sync_files",
        [
          { title: "Command" },
          { title: "Cgroup" },
          { title: "First", right: true },
          { title: "Last", right: true },
          { title: "Per hour", right: true },
          { title: "" },
        ],
        rows,
      ),
    );
  }
}
