// From the network's outputs to boxes, as run.py does it: decoding and non-maximum suppression (NMS).
// A row is {box: [4 numbers], score, label, more: Float32Array}: box is x1, y1, x2, y2 in pixels of the network's image, and of
// rotated boxes x, y, width, height. Numbers are rounded to float32 where run.py has float32.

const CLASS_OFFSET = 7680; // pixels between the boxes of two classes in NMS, so that only boxes of one class compete
const MAX_CANDIDATES = 30000; // boxes that enter NMS
const { fround } = Math;

/**
 * Return the boxes that are found, the surest first, and the masks' prototypes where the model has masks.
 * @param outputs [{dims, data}] of the network
 * @param known the model's description, as in model.yaml
 */
export function decode(outputs, known, conf = known.conf, iou = known.iou) {
  const classes = Object.keys(known.names).length;
  const masks = outputs.find(({ dims }) => dims.length === 4) ?? null;
  const tables = outputs.filter(({ dims }) => dims.length === 3);
  const points = (known.kpt_shape ?? []).reduce((product, side) => product * side, 1);
  const more = { segment: masks?.dims[1] ?? 0, obb: 1, pose: points }[known.task] ?? 0;
  if (tables.length !== 1 || (known.task === "segment") !== (masks !== null)) throw unknownOutputs(outputs, known);
  const [, first, second] = tables[0].dims;
  if (second === 6 + more) {
    return { rows: endToEnd(tables[0], conf).slice(0, known.max_det), masks };
  }
  if (first !== 4 + classes + more) throw unknownOutputs(outputs, known);
  const rotated = known.task === "obb";
  const rows = candidates(tables[0], classes, conf, rotated);
  const kept = rotated ? suppressRotated(rows, iou) : suppress(rows, iou, known.max_det);
  return { rows: kept.slice(0, known.max_det), masks };
}

/** Return the error for outputs of unknown shapes. */
export function unknownOutputs(outputs, known) {
  const shapes = outputs.map(({ dims }) => `(${dims.join(", ")})`).join(", ");
  return new Error(
    `outputs of shape ${shapes} are not known for ${known.task} with ${Object.keys(known.names).length} classes; ` +
      "this page takes those of Ultralytics' YOLOv8, YOLO11 and end-to-end models",
  );
}

/** Return the rows that the network itself has sorted out: (1, n, 6 + extra). */
function endToEnd({ dims, data }, conf) {
  const rows = [];
  for (let start = 0; start < dims[1] * dims[2]; start += dims[2]) {
    const [x1, y1, x2, y2, score, label] = data.subarray(start, start + 6);
    if (score > fround(conf)) rows.push({ box: [x1, y1, x2, y2], score, label, more: data.slice(start + 6, start + dims[2]) });
  }
  return rows;
}

/** Return the boxes of a raw output (1, 4 + classes + extra, n) that are sure enough, the surest first. */
export function candidates({ dims, data }, classes, conf, rotated) {
  const [, height, count] = dims;
  const best = data.slice(4 * count, 5 * count);
  const label = new Uint16Array(count);
  for (let c = 1; c < classes; c++) {
    for (let i = 0, at = (4 + c) * count; i < count; i++, at++) {
      if (data[at] > best[i]) {
        best[i] = data[at];
        label[i] = c;
      }
    }
  }
  const rows = [];
  for (let i = 0; i < count; i++) {
    if (!(best[i] > fround(conf))) continue;
    const [x, y, w, h] = [0, 1, 2, 3].map((line) => data[line * count + i]);
    const box = rotated ? [x, y, w, h] : [x - w / 2, y - h / 2, x + w / 2, y + h / 2].map(fround);
    const more = Float32Array.from({ length: height - 4 - classes }, (_, k) => data[(4 + classes + k) * count + i]);
    rows.push({ box, score: best[i], label: label[i], more });
  }
  return rows.sort((one, other) => other.score - one.score).slice(0, MAX_CANDIDATES);
}

/** Return the first rows, `most` at most, that no surer box of their class overlaps by more than `iou` (cv2.dnn.NMSBoxes). */
export function suppress(rows, iou, most) {
  const kept = [];
  const boxesOf = new Map(); // by class
  for (const row of rows) {
    if (kept.length === most) break;
    if (!boxesOf.has(row.label)) boxesOf.set(row.label, []);
    const boxes = boxesOf.get(row.label);
    const offset = row.label * CLASS_OFFSET;
    const [x1, y1, x2, y2] = row.box.map((value) => fround(value + offset));
    const box = [x1, y1, Math.max(fround(x2 - x1), fround(1e-6)), Math.max(fround(y2 - y1), fround(1e-6))];
    if (boxes.some((other) => overlap(box, other) > fround(iou))) continue;
    boxes.push(box);
    kept.push(row);
  }
  return kept;
}

/** Return the intersection over union of two boxes (x, y, width, height). */
function overlap(one, other) {
  const width = Math.min(one[0] + one[2], other[0] + other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[1] + one[3], other[1] + other[3]) - Math.max(one[1], other[1]);
  if (width <= 0 || height <= 0) return 0;
  const common = width * height;
  return fround(1 - fround(1 - common / (one[2] * one[3] + other[2] * other[3] - common)));
}

/** Return the rows that no surer rotated box of their class overlaps by more than a probabilistic `iou`. */
export function suppressRotated(rows, iou) {
  const normals = rows.map(normal);
  // A box that is itself dropped still drops others, as in Ultralytics' NMS of rotated boxes
  return rows.filter((_, i) => {
    for (let j = 0; j < i; j++) {
      if (rows[j].label === rows[i].label && probabilisticIou(normals[j], normals[i]) > fround(iou)) return false;
    }
    return true;
  });
}

/** Return centre and covariance of a rotated box. */
function normal({ box: [x, y, width, height], label, more }) {
  const [angle, offset] = [more[more.length - 1], label * CLASS_OFFSET];
  const [a, b, cos, sin] = [fround((width * width) / 12), fround((height * height) / 12), Math.cos(angle), Math.sin(angle)];
  const values = [x + offset, y + offset, a * cos ** 2 + b * sin ** 2, a * sin ** 2 + b * cos ** 2, (a - b) * cos * sin];
  return values.map(fround);
}

/** Return the overlap of rotated boxes as normal distributions (arXiv:2106.06072). */
function probabilisticIou([x1, y1, a1, b1, c1], [x2, y2, a2, b2, c2]) {
  const EPS = 1e-7;
  const [a, b, c, x, y] = [a1 + a2, b1 + b2, c1 + c2, x2 - x1, y1 - y2];
  const size = a * b - c ** 2;
  const roots = Math.sqrt(Math.max(a1 * b1 - c1 ** 2, 0) * Math.max(a2 * b2 - c2 ** 2, 0));
  let distance = ((a * y ** 2 + b * x ** 2) / (size + EPS)) * 0.25 + ((c * x * y) / (size + EPS)) * 0.5;
  distance += Math.log(size / (4 * roots + EPS) + EPS) * 0.5;
  distance = Math.min(Math.max(distance, EPS), 100);
  return 1 - Math.sqrt(1 - Math.exp(-distance) + EPS);
}
