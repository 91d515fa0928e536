// The filter: words as in `lsbuf ls`, each of which a buffer must have.

const UNITS = { "": 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 };

function leastSize(text) {
  const parts = /^(\d+(?:\.\d+)?)([kmgt]?)i?b?$/.exec(text);
  return parts ? Number(parts[1]) * UNITS[parts[2]] : null;
}

/** What one word asks of a row. */
function asks(word) {
  const [, key, value] = /^([a-z-]+)=(.*)$/.exec(word) || [];
  switch (key) {
    case "kind":
      return (row) => value.split(",").includes(row.buffer.kind);
    case "name":
      return (row) => row.name.toLowerCase().includes(value);
    case "exporter":
      return (row) => row.exporter !== null && row.exporter.toLowerCase().includes(value);
    case "command":
      return (row) => row.commands.some((command) => command.toLowerCase().includes(value));
    case "shape":
      return (row) => row.shape === value;
    case "pid": {
      const pids = new Set(value.split(",").map(Number));
      return (row) => row.pids.some((pid) => pids.has(pid));
    }
    case "min-size": {
      const least = leastSize(value);
      if (least === null) return () => true;
      return (row) => row.buffer.size !== null && row.buffer.size >= least;
    }
  }
  if (word === "deleted") return (row) => row.buffer.deleted === true || row.text.includes(word);
  if (word === "unheld") return (row) => row.isUnheld || row.text.includes(word);
  return (row) => row.text.includes(word);
}

/** The rows that have every word. */
function filtered(rows, words) {
  const wanted = words
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== "")
    .map(asks);
  if (wanted.length === 0) return rows;
  return rows.filter((row) => wanted.every((has) => has(row)));
}
