// A network with all that turns a photograph into a list of what is found, as `Detector` in run.py.

import { centreCrop, letterbox, toPhoto } from "./letterbox.js";
import { decode, unknownOutputs } from "./nms.js";

const TOP = 5; // classes that a classifier names
export const TASKS = ["detect", "segment", "pose", "obb", "classify"];
const rounded = (value, scale = 1000) => Math.round(value * scale) / scale;

/**
 * Return what is found in a photograph, the surest first, and the milliseconds of each part.
 * @param photo {width, height, data} with RGBA bytes
 * @param network async function from the network's image (Float32Array) to [{dims, data}]
 * @param known the model's description, as in model.yaml
 */
export async function find(photo, network, known, conf = known.conf) {
  const clock = [performance.now()];
  const classify = known.task === "classify";
  const { planes, geometry } = classify ? { planes: centreCrop(photo, known.imgsz) } : letterbox(photo, known.imgsz);
  clock.push(performance.now());
  const outputs = await network(planes);
  clock.push(performance.now());
  const found = classify ? likeliest(outputs, known) : objects(outputs, known, geometry, conf);
  clock.push(performance.now());
  const [letterboxMs, networkMs, nmsMs] = [0, 1, 2].map((i) => clock[i + 1] - clock[i]);
  return { found, times: { letterbox: letterboxMs, network: networkMs, nms: nmsMs } };
}

/** Return a class with its score. */
function named(known, label, score) {
  return { name: known.names[label], class: label, score: rounded(score, 1e6) };
}

/** Return a classifier's likeliest classes. */
function likeliest(outputs, known) {
  const count = Object.keys(known.names).length;
  if (outputs.length !== 1 || outputs[0].data.length !== count) throw unknownOutputs(outputs, known);
  const scores = [...outputs[0].data].map((score, label) => ({ score, label }));
  scores.sort((one, other) => other.score - one.score);
  return scores.slice(0, TOP).map(({ score, label }) => named(known, label, score));
}

/** Return the objects in outputs, in pixels of the photograph. */
function objects(outputs, known, geometry, conf) {
  const { rows, masks } = decode(outputs, known, conf);
  const found = [];
  for (const row of rows) {
    const one = named(known, row.label, row.score);
    if (known.task === "obb") Object.assign(one, rotatedBox(row, geometry));
    else one.box = [...toPhoto(row.box[0], row.box[1], geometry), ...toPhoto(row.box[2], row.box[3], geometry)];
    one.box = one.box.map((value) => rounded(value));
    if (known.task === "pose") one.keypoints = keypoints(row.more, known.kpt_shape, geometry);
    if (masks) one.mask = cutMask(masks, row, known.imgsz, geometry);
    if (one.mask !== null) found.push(one); // as Ultralytics leaves out what has no mask
  }
  return found;
}

/** Return corners and the upright box around a rotated box. */
function rotatedBox({ box, more }, geometry) {
  const angle = more[more.length - 1];
  const [x, y] = [(box[0] - geometry.left) / geometry.gain[0], (box[1] - geometry.top) / geometry.gain[1]];
  const [width, height] = [box[2] / geometry.gain[0] / 2, box[3] / geometry.gain[1] / 2];
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const signs = [[1, 1], [1, -1], [-1, -1], [-1, 1]];
  const corners = signs.map(([u, v]) => [
    rounded(x + u * cos * width - v * sin * height),
    rounded(y + u * sin * width + v * cos * height),
  ]);
  const [xs, ys] = [corners.map((corner) => corner[0]), corners.map((corner) => corner[1])];
  return { corners, box: [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)] };
}

/** Return keypoints: x, y and, where the model gives it, how surely each is seen. */
function keypoints(values, [count, size], geometry) {
  return Array.from({ length: count }, (_, i) => {
    const [x, y, ...seen] = values.subarray(i * size, (i + 1) * size);
    return [...toPhoto(x, y, geometry), ...seen].map((value) => rounded(value));
  });
}

/** Return the mask of a row inside its box, one byte for each pixel of the network's image; null where it is empty. */
function cutMask({ dims, data }, row, size, geometry) {
  const [, channels, rows, columns] = dims;
  const low = new Float32Array(rows * columns);
  for (let c = 0; c < channels; c++) {
    for (let i = 0, at = c * low.length; i < low.length; i++, at++) low[i] += row.more[c] * data[at];
  }
  const [left, top, right, bottom] = row.box.map((value) => Math.max(Math.ceil(value), 0));
  const [width, height] = [Math.min(right, size[1]) - left, Math.min(bottom, size[0]) - top];
  if (width <= 0 || height <= 0) return null;
  const bits = new Uint8Array(width * height);
  for (let y = 0, at = 0; y < height; y++) {
    const [y1, y2, v] = between(top + y, rows, size[0]);
    for (let x = 0; x < width; x++, at++) {
      const [x1, x2, u] = between(left + x, columns, size[1]);
      const above = low[y1 * columns + x1] * (1 - u) + low[y1 * columns + x2] * u;
      const below = low[y2 * columns + x1] * (1 - u) + low[y2 * columns + x2] * u;
      bits[at] = above * (1 - v) + below * v > 0 ? 1 : 0;
    }
  }
  const place = [(left - geometry.left) / geometry.gain[0], (top - geometry.top) / geometry.gain[1]];
  const extent = [width / geometry.gain[0], height / geometry.gain[1]];
  return bits.includes(1) ? { width, height, bits, place, extent } : null;
}

/** Return the two places of a short side that a place of a long side lies between, and the share of the second. */
function between(place, short, long) {
  const centre = Math.min(Math.max(((place + 0.5) * short) / long - 0.5, 0), short - 1);
  const first = Math.floor(centre);
  return [first, Math.min(first + 1, short - 1), centre - first];
}
