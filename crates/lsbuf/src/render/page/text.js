// How text and figures are written. Names are chosen by other processes: what is not printable becomes \xNN,
// byte by byte, as on a terminal, so that no name can hide, break a line or turn it around.

const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0\u00ad\\]|(?<=\p{M}{4})\p{M}/gu;
const PLAIN = /^[ -[\]-~]*$/;
const ENCODER = new TextEncoder();

function escaped(character) {
  if (character === "\\") return "\\\\";
  return Array.from(ENCODER.encode(character), (byte) => "\\x" + byte.toString(16).padStart(2, "0")).join("");
}

/** Text of another process as it is shown. `bytes` is there if the text is not UTF-8, and is escaped. */
function visible(text, bytes) {
  if (typeof bytes === "string") return bytes;
  if (text === null || text === undefined) return "?";
  return PLAIN.test(text) ? String(text) : String(text).replace(UNPRINTABLE, escaped);
}

/** The text of a key of an object, with its bytes if it has some. */
function named(object, key) {
  return visible(object[key], object[key + "_bytes"]);
}

/** Bytes for people: three digits and a unit of 1024. */
function size(bytes) {
  if (typeof bytes !== "number") return "?";
  let unit = 0;
  let value = Math.abs(bytes);
  while (value >= 999.5 && unit < 6) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? value.toFixed(0) : value.toFixed(1);
  return (bytes < 0 ? "-" : "") + digits + ["", "K", "M", "G", "T", "P", "E"][unit];
}

/** A whole number with thin groups of three. Above 2^53 the browser rounds it, which is said. */
function whole(number) {
  if (typeof number !== "number") return "?";
  const text = Math.round(number)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return Number.isSafeInteger(number) || !Number.isInteger(number) ? text : "~" + text;
}

/** A number that names something: without groups. */
function number(value) {
  if (typeof value !== "number") return "?";
  return Number.isSafeInteger(value) ? String(value) : "~" + value;
}

/** A size in words: for people, and exact. */
function exactly(bytes) {
  return typeof bytes === "number" ? `${size(bytes)} (${whole(bytes)} bytes)` : "?";
}

function counted(n, one, many) {
  return `${whole(n)} ${n === 1 ? one : many}`;
}

/** A time of the answer, in UTC. */
function moment(text) {
  return typeof text === "string" ? text.replace("T", " ").replace(/\.\d+/, "").replace("Z", " UTC") : "?";
}

/** For how long, from seconds. */
function lasting(seconds) {
  if (typeof seconds !== "number") return "?";
  const s = Math.round(seconds);
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${s % 60 ? `${s % 60}s` : ""}`;
  if (s < 86400) return `${Math.floor(s / 3600)}h${Math.floor((s % 3600) / 60)}m`;
  return `${Math.floor(s / 86400)}d${Math.floor((s % 86400) / 3600)}h`;
}
