// What the page shows: a snapshot in the words of lsbuf.snapshot/1, and of a recording its history
// and its suspects. Every figure that is computed here is computed once.

const CHARGED = new Set([
  "memfd",
  "sysv",
  "shm-anon",
  "tmpfs",
  "hugetlbfs",
  "gem-shmem",
  "ashmem",
  "shm-other",
]);

/** The cost of a buffer, as lsbuf counts it; null: unknown. */
function costOf(buffer) {
  return (CHARGED.has(buffer.kind) ? buffer.charged : buffer.size) ?? null;
}

/** Whether the document is what the page can show. */
function isSnapshot(document) {
  return Boolean(document) && document.schema === "lsbuf.snapshot/1" && Array.isArray(document.buffers);
}

/** The data of an island or of a server: a snapshot alone, or one with its history. */
function read(all) {
  const parts = isSnapshot(all) ? { snapshot: all } : all || {};
  if (!isSnapshot(parts.snapshot)) throw new Error("This is no document of lsbuf.");
  const { snapshot } = parts;
  const processes = new Map(snapshot.processes.map((process) => [process.pid, process]));
  const commands = new Map(snapshot.processes.map((process) => [process.pid, named(process, "comm")]));
  const rows = snapshot.buffers.map((buffer) => rowOf(buffer, commands));
  for (const file of snapshot.unheld || []) rows.push(rowOfUnheld(file));
  return {
    snapshot,
    processes,
    commands,
    rows,
    history: parts.history || null,
    leaks: parts.leaks || null,
    redacted: Boolean(parts.redacted),
    hasOrigins: rows.some((row) => row.buffer.origin),
  };
}

/** A buffer as a row of the page. What only some views need of it is made when it is asked for. */
class Row {
  constructor(buffer, pids, holders, commands) {
    this.buffer = buffer;
    this.pids = pids;
    this.holders = holders;
    this.commands = commands;
    this.name = named(buffer, "name");
    this.exporter = buffer.exporter === null ? null : named(buffer, "exporter");
    this.cost = costOf(buffer);
    this.isUnheld = pids.length === 0;
    this.isFile = false;
    this.shape = buffer.leak_shape;
    /** The innermost call that made it, once the calls are counted. */
    this.call = null;
  }

  /** What a word of the filter is looked for in. */
  get text() {
    const { buffer, name, exporter, holders, pids } = this;
    this.searched ??= [buffer.kind, buffer.ino, name, exporter ?? "", holders, pids.join(" ")]
      .join("\n")
      .toLowerCase();
    return this.searched;
  }
}

function rowOf(buffer, commands) {
  if (buffer.holders.length === 1) {
    const { pid } = buffer.holders[0];
    const command = commands.get(pid) ?? "?";
    return new Row(buffer, [pid], command, [command]);
  }
  const pids = buffer.holders.map((holder) => holder.pid);
  const words = new Map();
  for (const pid of pids) {
    const command = commands.get(pid) ?? "?";
    words.set(command, (words.get(command) || 0) + 1);
  }
  const holders = Array.from(words, ([command, n]) => (n > 1 ? `${command}×${n}` : command));
  return new Row(buffer, pids, holders.join(", "), Array.from(words.keys()).sort());
}

/** A file that nobody holds. */
function rowOfUnheld(file) {
  const buffer = { ...file, name: file.path, name_bytes: file.path_bytes };
  const row = new Row({ ...buffer, exporter: null, refs: null, holders: [] }, [], "", []);
  row.isFile = true;
  row.shape = "unheld";
  return row;
}

/** The sum of known costs, and how many are unknown. */
function costs(rows) {
  let known = 0;
  let unknown = 0;
  for (const row of rows) {
    if (row.cost === null) unknown += 1;
    else known += row.cost;
  }
  return { known, unknown };
}

/** The cost of rows in words: what is unknown is not counted as nothing. */
function costText(rows) {
  const { known, unknown } = costs(rows);
  return unknown === 0 ? size(known) : `${size(known)} and ${whole(unknown)} of unknown cost`;
}

/** The cost of rows as a figure: what is unknown of it is `?`. */
function costFigure(rows) {
  const { known, unknown } = costs(rows);
  if (unknown === 0) return size(known);
  return unknown === rows.length ? "?" : `${size(known)}+?`;
}

/** Rows by a key, each with their cost, the largest first. */
function grouped(rows, key) {
  const groups = new Map();
  for (const row of rows) {
    const name = key(row);
    let group = groups.get(name);
    if (!group) groups.set(name, (group = { name, rows: [], cost: 0 }));
    group.rows.push(row);
    group.cost += row.cost || 0;
  }
  return Array.from(groups.values()).sort((a, b) => b.cost - a.cost || b.rows.length - a.rows.length);
}

/** A name with # for its numbers, as lsbuf folds it. */
function folded(name) {
  return name.replace(/\d+/g, "#") || "unnamed";
}

/** Commands as one label; of many only the first ones. */
function together(commands) {
  if (commands.length === 0) return "held by no process";
  if (commands.length <= 3) return commands.join(" + ");
  return `${commands.slice(0, 2).join(" + ")} + ${commands.length - 2} more`;
}
