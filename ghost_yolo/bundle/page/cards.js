// One card for each model: the drawn photograph, the milliseconds, and what is found.

import { colourOf, draw } from "./draw.js";

const PARTS = ["letterbox", "network", "nms"];
const TITLES = { letterbox: "letterbox", network: "network", nms: "NMS" };
const SHOWN = 50; // lines of a table

/** Return an element with some attributes and children; text is never read as HTML. */
function element(name, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

/** Return the median of numbers. */
export function median(values) {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Return the medians of all parts and of their sum, in milliseconds; null without any time. */
export function medians(times) {
  if (!times.length) return null;
  const parts = Object.fromEntries(PARTS.map((part) => [part, median(times.map((one) => one[part]))]));
  return { ...parts, total: median(times.map((one) => PARTS.reduce((sum, part) => sum + one[part], 0))) };
}

/** Return an empty card of a model. */
export function makeCard(title, about) {
  const canvas = element("canvas", { hidden: true });
  const numbers = element("div", { className: "numbers" });
  const rows = element("div", { className: "rows" });
  const root = element("article", { className: "card" });
  root.append(element("h2", {}, title), element("p", { className: "about" }, about), canvas, numbers, rows);
  return { root, canvas, numbers, rows };
}

/** Fill a card with what a model found in an image, and how long that took. */
export function fillCard(card, image, photo, { found, times }) {
  card.canvas.hidden = false;
  draw(card.canvas, image, photo, found);
  card.numbers.replaceChildren(...timesOf(times));
  card.rows.replaceChildren(...tableOf(found));
}

/** Return the milliseconds as elements. */
function timesOf(times) {
  const ms = medians(times);
  if (!ms) return [element("p", { className: "total" }, element("small", {}, "measuring…"))];
  const rounds = times.length > 1 ? `median of ${times.length}` : "one run";
  const total = element("p", { className: "total" }, `${ms.total.toFixed(1)} ms `, element("small", {}, rounds));
  const bar = element("div", { className: "bar" });
  const sum = PARTS.reduce((all, part) => all + ms[part], 0); // not the median of the sums
  for (const part of PARTS) {
    const share = element("i", { className: part });
    share.style.width = `${(100 * ms[part]) / sum}%`;
    bar.append(share);
  }
  const lines = PARTS.map((part) => element("li", { className: part }, `${TITLES[part]} ${ms[part].toFixed(1)} ms`));
  return [total, bar, element("ul", { className: "parts" }, ...lines)];
}

/** Return what is found as a table. */
function tableOf(found) {
  if (!found.length) return [element("p", {}, "Nothing found.")];
  const boxed = "box" in found[0];
  const head = ["name", "score", ...(boxed ? ["x1", "y1", "x2", "y2"] : [])].map((text) => element("th", { scope: "col" }, text));
  const body = found.slice(0, SHOWN).map((one) => {
    const dot = element("i");
    dot.style.background = colourOf(one);
    const cells = [one.score.toFixed(2), ...(one.box ?? []).map((value) => Math.round(value))];
    return element("tr", {}, element("td", {}, dot, one.name), ...cells.map((value) => element("td", {}, String(value))));
  });
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
  const count = `${found.length} object${found.length > 1 ? "s" : ""}${found.length > SHOWN ? `, the first ${SHOWN}:` : ""}`;
  return boxed ? [element("p", { className: "about" }, count), table] : [table];
}
