// Elements. Text only ever becomes text: nothing here parses markup, and listeners are functions.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** An HTML element with attributes, listeners and children. */
function el(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** An SVG element. */
function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** Text of another process, which cannot change the direction of what stands around it. */
function bdi(text) {
  return el("bdi", null, text);
}

/** Pairs of a term and what is known of it; what is undefined is left out. */
function pairs(list) {
  const dl = el("dl", { class: "pairs" });
  for (const [term, what] of list) {
    if (what === undefined) continue;
    dl.append(el("div", null, el("dt", null, term), el("dd", null, ...[what].flat())));
  }
  return dl;
}

/** A plain table. A cell is text or an element; numbers stand to the right. */
function plainTable(caption, heads, rows) {
  const head = heads.map((head) =>
    el("th", { scope: "col", class: head.right ? "right" : null }, head.title),
  );
  const body = rows.map((row) =>
    el(
      "tr",
      null,
      ...row.map((cell, nth) =>
        el(
          nth === 0 ? "th" : "td",
          { scope: nth === 0 ? "row" : null, class: heads[nth].right ? "right" : null },
          cell,
        ),
      ),
    ),
  );
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el(
      "table",
      null,
      el("caption", null, caption),
      el("thead", null, el("tr", null, ...head)),
      el("tbody", null, ...body),
    ),
  );
}

/**
 * The same as a picture has, as a table that is made when it is opened. `make` returns the table;
 * `refresh` makes it anew if it is open.
 */
function lazyTable(make) {
  const box = el("div");
  const details = el(
    "details",
    { toggle: () => box.replaceChildren(...(details.open ? [make()] : [])) },
    el("summary", null, "The same as a table"),
    box,
  );
  const refresh = () => {
    if (details.open) box.replaceChildren(make());
  };
  return { element: details, refresh };
}

/** Where an element is, by the CSS object model, which the page's policy allows. */
function place(element, x, y, width, height) {
  const { style } = element;
  style.left = `${x}px`;
  style.top = `${y}px`;
  style.width = `${Math.max(0, width)}px`;
  style.height = `${Math.max(0, height)}px`;
}

/**
 * One tab stop for many elements: arrows move among them. `next` tells where a key leads from an
 * element; undefined: the key means nothing.
 */
function roving(box, selector, next) {
  const enter = (element) => {
    for (const old of box.querySelectorAll(`${selector}[tabindex="0"]`)) old.tabIndex = -1;
    element.tabIndex = 0;
  };
  box.addEventListener("keydown", (event) => {
    const from = event.target.closest(selector);
    if (!from || event.ctrlKey || event.altKey || event.metaKey) return;
    const to = next(event.key, from);
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    if (to) {
      enter(to);
      to.focus();
    }
  });
  box.addEventListener("focusin", (event) => {
    const element = event.target.closest(selector);
    if (element) enter(element);
  });
  const first = box.querySelector(selector);
  if (first) first.tabIndex = 0;
}

/** Hints of areas. Most are never pointed at, so they get theirs when they are. */
function hints(box) {
  box.addEventListener("pointerover", (event) => {
    const cell = event.target.closest("[data-level]");
    if (cell) cell.title = cell.getAttribute("aria-label");
  });
}
