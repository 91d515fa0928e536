// The page as a whole: reads the data, says how complete they are, and shows one view at a time. The
// address has the view behind #, so that a link can name one.

const VIEWS = [
  ["map", "Map", (app) => new Treemap(app)],
  ["buffers", "Buffers", (app) => buffersView(app)],
  ["processes", "Processes", (app) => processesView(app)],
  ["sharing", "Sharing", (app) => new Graph(app)],
  ["time", "Time", (app) => new Timeline(app)],
  ["leaks", "Leaks", (app) => new Leaks(app)],
  ["origins", "Origins", (app) => new Icicle(app)],
];

function buffersView(app) {
  const table = new VirtualTable(
    "Buffers",
    bufferColumns(app.data),
    "COST",
    (row) => app.open(row),
    "A row in full has them all.",
  );
  table.hold(app.data.rows);
  return { element: table.element, show: (rows) => table.show(rows) };
}

function processesView(app) {
  const all = app.data.snapshot.processes;
  const table = new VirtualTable(
    "Processes",
    processColumns(),
    "PSS",
    (process) => app.listProcess(process.pid),
    "A wider window has them.",
  );
  table.hold(all);
  return {
    element: el(
      "div",
      null,
      el(
        "p",
        { class: "hint" },
        "Processes that hold one of the buffers that pass the filter. " +
          "Their figures are of all that they hold.",
      ),
      table.element,
    ),
    show(rows) {
      if (rows === app.data.rows) return table.show(all);
      const pids = new Set(rows.flatMap((row) => row.pids));
      return table.show(all.filter((process) => pids.has(process.pid)));
    },
  };
}

class App {
  constructor(data) {
    this.data = data;
    this.views = new Map();
    this.only = null;
    this.find = (id) => document.getElementById(id);
  }

  start() {
    this.about();
    const tabs = this.find("views");
    tabs.replaceChildren(
      ...VIEWS.map(([name, title], nth) =>
        el(
          "button",
          {
            type: "button",
            role: "tab",
            id: `tab-${name}`,
            "aria-controls": "panel",
            "aria-keyshortcuts": nth + 1,
            tabindex: -1,
            click: () => this.go(name),
          },
          title,
        ),
      ),
    );
    tabs.addEventListener("keydown", (event) => this.tabKey(event));
    this.find("words").addEventListener("input", () => this.update(true));
    this.find("filter").addEventListener("submit", (event) => event.preventDefault());
    this.find("only").addEventListener("click", () => {
      this.only = null;
      this.update();
      this.find("words").focus();
    });
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("hashchange", () => this.go(location.hash.slice(1)));
    this.go(location.hash.slice(1), true);
    requestAnimationFrame(() => setTimeout(() => this.drawn(), 0));
  }

  /** When the first view is on the screen: for whoever measures, and to make the filter ready. */
  drawn() {
    performance.mark("lsbuf-drawn");
    setTimeout(() => this.data.rows.forEach((row) => row.text), 300);
  }

  about() {
    const { snapshot } = this.data;
    const { host, scan, totals } = snapshot;
    this.find("about").replaceChildren(
      bdi(visible(host.hostname)),
      `, Linux `,
      bdi(visible(host.kernel)),
      `, ${moment(snapshot.taken_at)}`,
      this.data.redacted ? ". Redacted: names, paths and ids are aliases." : "",
    );
    const notes = scan.notes.map((note) => el("li", null, bdi(visible(note))));
    const { processes } = scan;
    const read = `${whole(processes.read)} of ${counted(processes.total, "process", "processes")} read`;
    const unread = processes.unreadable > 0 ? `, ${whole(processes.unreadable)} could not be read` : "";
    this.find("coverage").className = scan.complete ? "complete" : "partial";
    this.find("coverage").replaceChildren(
      el(
        "p",
        null,
        el("strong", null, scan.complete ? "The answer is complete." : "The answer is partial."),
        ` ${read}${unread}. Read from: ${scan.sources.join(", ")}.`,
      ),
      notes.length > 0
        ? el(
            "details",
            { open: !scan.complete },
            el("summary", null, counted(notes.length, "note", "notes")),
            el("ul", null, ...notes),
          )
        : "",
    );
    const figure = (term, what) =>
      el("div", null, el("dt", null, term), el("dd", { class: what === "?" ? "unknown" : null }, what));
    const least = totals.size === null ? `? (at least ${size(totals.at_least)})` : size(totals.size);
    this.find("totals").replaceChildren(
      figure("Buffers", whole(totals.buffers)),
      figure("Cost", least),
      figure("Held", size(totals.held)),
      figure("Only in the kernel", size(totals.kernel_only)),
      figure(
        "References unexplained",
        totals.unattributed_refs === null
          ? "?"
          : (totals.estimate ? "~" : "") + whole(totals.unattributed_refs),
      ),
    );
    if (this.data.rows.length !== totals.buffers)
      this.find("totals").append(figure("On this page", counted(this.data.rows.length, "buffer", "buffers")));
  }

  go(name, first = false) {
    const known = VIEWS.find((view) => view[0] === name) || VIEWS[0];
    const [id, title, make] = known;
    if (location.hash !== `#${id}` && location.hash !== "") history.replaceState(null, "", `#${id}`);
    if (location.hash === "" && id !== VIEWS[0][0]) history.replaceState(null, "", `#${id}`);
    this.current = id;
    if (!this.views.has(id)) this.views.set(id, make(this));
    for (const [other] of VIEWS) {
      const tab = this.find(`tab-${other}`);
      tab.setAttribute("aria-selected", other === id);
      tab.tabIndex = other === id ? 0 : -1;
    }
    const panel = this.find("panel");
    panel.setAttribute("aria-labelledby", `tab-${id}`);
    panel.dataset.view = id;
    panel.replaceChildren(this.views.get(id).element);
    document.title = `${title} – shared buffers`;
    this.update(first);
  }

  /** Shows in the current view what passes the filter. In haste it may leave out what is small. */
  update(haste = false) {
    const base = this.only ? this.only.rows : this.data.rows;
    const rows = filtered(base, this.find("words").value);
    this.find("only").hidden = !this.only;
    this.find("only").replaceChildren(...(this.only ? ["only ", bdi(this.only.what), " ×"] : []));
    const all = counted(this.data.rows.length, "buffer", "buffers");
    this.find("filter-count").value =
      rows.length === this.data.rows.length
        ? counted(rows.length, "buffer", "buffers")
        : `${whole(rows.length)} of ${all}, ${costText(rows)}`;
    this.views.get(this.current).show(rows, haste);
  }

  /** Lists these buffers, and no others, until that is taken back. */
  list(what, rows) {
    this.only = { what, rows };
    this.find("words").value = "";
    this.go("buffers");
    this.find("panel").focus();
  }

  listProcess(pid) {
    const command = this.data.commands.get(pid) ?? "?";
    this.list(
      `${command}:${number(pid)}`,
      this.data.rows.filter((row) => row.pids.includes(pid)),
    );
  }

  open(row) {
    const before = document.activeElement;
    const box = this.find("detail");
    this.close = () => {
      box.hidden = true;
      box.replaceChildren();
      document.body.classList.remove("has-detail");
      this.close = null;
      if (before?.isConnected) before.focus();
      else this.find("panel").focus();
    };
    document.body.classList.add("has-detail");
    showDetail(this, box, row, () => this.close());
  }

  tabKey(event) {
    const names = VIEWS.map((view) => view[0]);
    const at = names.indexOf(this.current);
    const to = {
      ArrowRight: (at + 1) % names.length,
      ArrowLeft: (at + names.length - 1) % names.length,
      Home: 0,
      End: names.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.go(names[to]);
    this.find(`tab-${names[to]}`).focus();
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const inField = event.target.closest?.("input, select, textarea");
    if (event.key === "Escape") {
      if (this.close) this.close();
      else if (this.only || this.find("words").value !== "") {
        this.only = null;
        this.find("words").value = "";
        this.update();
      } else return;
      event.preventDefault();
      return;
    }
    if (inField) return;
    if (event.key === "/") {
      event.preventDefault();
      this.find("words").focus();
    } else if (event.key >= "1" && event.key <= String(VIEWS.length))
      this.go(VIEWS[Number(event.key) - 1][0]);
  }
}

/** A choice of the theme; none is that of the system. */
function themes() {
  const choice = document.getElementById("theme");
  choice.addEventListener("change", () => {
    if (choice.value === "") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice.value;
  });
}

/** Shows data, or says why they cannot be shown. */
function begin(data) {
  try {
    new App(read(data)).start();
  } catch (error) {
    failed(error);
  }
}

function failed(error) {
  const problem = document.getElementById("problem");
  problem.textContent = `The page cannot show its data: ${error.message}`;
  problem.hidden = false;
}

themes();
const island = JSON.parse(document.getElementById("data").textContent);
if (island === null) {
  fetch("snapshot.json")
    .then((answer) => {
      if (!answer.ok) throw new Error(`the server answered with ${answer.status}`);
      return answer.json();
    })
    .then(begin)
    .catch(failed);
} else begin(island);
