// From a photograph to the network's image and back, as run.py does it; a test holds the two against each other.
// A photograph is {width, height, data}: RGBA bytes, as a canvas gives them. Sizes are [height, width] in pixels.

const GREY = 114; // of the letterbox's bars
const BITS = 2048; // OpenCV resizes bytes in integers, with weights of 11 bits
const LEVELS = Float32Array.from({ length: 256 }, (_, level) => level / 255);

/** Round halves to the even neighbour, as Python and OpenCV do. */
export function roundEven(value) {
  const near = Math.round(value);
  return near - value === 0.5 && near % 2 ? near - 1 : near;
}

/** Return how a photograph lies in an image of some size: as large as fits, in the middle. */
export function fit(photo, size) {
  const gain = Math.min(size[0] / photo[0], size[1] / photo[1]);
  const [height, width] = photo.map((side) => Math.max(roundEven(side * gain), 1));
  const top = roundEven((size[0] - height) / 2 - 0.1);
  const left = roundEven((size[1] - width) / 2 - 0.1);
  return { photo, resized: [height, width], top, left, gain: [width / photo[1], height / photo[0]].map(Math.fround) };
}

/** Return a point of the network's image in pixels of the photograph, and inside it. */
export function toPhoto(x, y, geometry) {
  const [height, width] = geometry.photo;
  const inside = (value, most) => Math.min(Math.max(value, 0), most);
  return [
    inside(Math.fround(Math.fround(x - geometry.left) / geometry.gain[0]), width),
    inside(Math.fround(Math.fround(y - geometry.top) / geometry.gain[1]), height),
  ];
}

/** Return, for every place of a resized side, the two places it is mixed from and their weights (cv2.INTER_LINEAR). */
function taps(given, wanted, clamp) {
  const first = new Int32Array(wanted);
  const second = new Int32Array(wanted);
  const near = new Int32Array(wanted);
  const far = new Int32Array(wanted);
  const last = given - 1;
  for (let i = 0; i < wanted; i++) {
    const centre = Math.fround((i + 0.5) * (given / wanted) - 0.5);
    let start = Math.floor(centre);
    let share = Math.fround(centre - start);
    if (clamp && (start < 0 || start >= last)) {
      start = start < 0 ? 0 : last;
      share = 0;
    }
    first[i] = Math.min(Math.max(start, 0), last);
    second[i] = Math.min(Math.max(start + 1, 0), last);
    near[i] = roundEven(Math.fround(1 - share) * BITS);
    far[i] = roundEven(share * BITS);
  }
  return { first, second, near, far };
}

/** Resize one row of pixels into `line` (three colours, not yet divided by 2048). */
function resizeRow(data, start, columns, line) {
  const { first, second, near, far } = columns;
  for (let x = 0, at = 0; x < first.length; x++) {
    const one = start + 4 * first[x];
    const other = start + 4 * second[x];
    const a = near[x];
    const b = far[x];
    line[at++] = data[one] * a + data[other] * b;
    line[at++] = data[one + 1] * a + data[other + 1] * b;
    line[at++] = data[one + 2] * a + data[other + 2] * b;
  }
}

/** Resize a photograph to [height, width], to the same bytes as cv2.resize; returns RGB bytes. */
export function resize(photo, [height, width]) {
  const out = new Uint8Array(3 * height * width);
  const columns = taps(photo.width, width, true); // OpenCV holds the edge's weight in x, not in y
  const rows = taps(photo.height, height, false);
  const lines = [0, 1].map(() => ({ row: -1, values: new Int32Array(3 * width) }));
  const lineOf = (row, other) => {
    const line = lines.find((one) => one.row === row) ?? lines.find((one) => one !== other);
    if (line.row !== row) resizeRow(photo.data, 4 * photo.width * row, columns, line.values);
    line.row = row;
    return line;
  };
  for (let y = 0, at = 0; y < height; y++) {
    const one = lineOf(rows.first[y], null);
    const { values: above } = one;
    const { values: below } = lineOf(rows.second[y], one);
    const a = rows.near[y];
    const b = rows.far[y];
    for (let i = 0; i < 3 * width; i++) {
      out[at++] = (((a * (above[i] >> 4)) >> 16) + ((b * (below[i] >> 4)) >> 16) + 2) >> 2;
    }
  }
  return out;
}

/** Copy RGB bytes (height, width) into planes of floats in 0..1 of some size, from a row and column on. */
function intoPlanes(pixels, [height, width], planes, size, top, left) {
  const plane = size[0] * size[1];
  for (let y = 0, at = 0; y < height; y++) {
    let place = (top + y) * size[1] + left;
    for (let x = 0; x < width; x++, place++) {
      planes[place] = LEVELS[pixels[at++]];
      planes[place + plane] = LEVELS[pixels[at++]];
      planes[place + 2 * plane] = LEVELS[pixels[at++]];
    }
  }
}

/** Return the network's image (3, h, w) of a photograph, RGB in 0..1, and how the photograph lies in it. */
export function letterbox(photo, size) {
  const geometry = fit([photo.height, photo.width], size);
  const planes = new Float32Array(3 * size[0] * size[1]).fill(LEVELS[GREY]);
  intoPlanes(resize(photo, geometry.resized), geometry.resized, planes, size, geometry.top, geometry.left);
  return { planes, geometry };
}

/** Return a photograph as classifiers take it (3, h, w): the shorter side resized, the middle cut out. */
export function centreCrop(photo, size) {
  let [height, width] = [photo.height, photo.width];
  if (size[0] !== size[1]) [height, width] = size;
  else if (height <= width) [height, width] = [size[0], Math.trunc((size[0] * width) / height)];
  else [height, width] = [Math.trunc((size[0] * height) / width), size[0]];
  const image = shrinkColumns(shrinkRows(photo, width), height);
  const [top, left] = [roundEven((height - size[0]) / 2), roundEven((width - size[1]) / 2)];
  const planes = new Float32Array(3 * size[0] * size[1]);
  for (let y = 0; y < size[0]; y++) {
    const start = 3 * ((top + y) * width + left);
    intoPlanes(image.data.subarray(start, start + 3 * size[1]), [1, size[1]], planes, size, y, 0);
  }
  return planes;
}

/** Resize the rows of a photograph (RGBA) to a width (RGB bytes) as Pillow does; see `triangle`. */
function shrinkRows(photo, width) {
  const data = new Uint8Array(3 * width * photo.height);
  const columns = triangles(photo.width, width);
  for (let y = 0, to = 0; y < photo.height; y++) {
    for (const { first, weights } of columns) {
      const start = 4 * (y * photo.width + first);
      for (let colour = 0; colour < 3; colour++, to++) data[to] = weighted(photo.data, start + colour, 4, weights);
    }
  }
  return { width, height: photo.height, data };
}

/** Resize the columns of an image (RGB bytes) to a height, as `shrinkRows`. */
function shrinkColumns(image, height) {
  const line = 3 * image.width;
  const data = new Uint8Array(line * height);
  for (const [y, { first, weights }] of triangles(image.height, height).entries()) {
    for (let x = 0; x < line; x++) data[y * line + x] = weighted(image.data, first * line + x, line, weights);
  }
  return { width: image.width, height, data };
}

/** Return the weighted mean of bytes that lie `step` apart. */
function weighted(data, start, step, weights) {
  let total = 1 << 21; // for rounding
  for (let i = 0, from = start; i < weights.length; i++, from += step) total += data[from] * weights[i];
  return Math.min(Math.max(total >> 22, 0), 255);
}

/** Return, for every place of a resized side, what `triangle` says; a side that stays is copied. */
function triangles(given, wanted) {
  if (given === wanted) return Array.from({ length: wanted }, (_, i) => ({ first: i, weights: Int32Array.of(1 << 22) }));
  return Array.from({ length: wanted }, (_, i) => triangle(i, given, wanted));
}

/**
 * Return the first place that goes into place `i` of a resized side, and the weights from there on, of 22 bits: Pillow's
 * bilinear filter, whose triangle widens where an image shrinks.
 */
function triangle(i, given, length) {
  const scale = given / length;
  const support = Math.max(scale, 1);
  const centre = (i + 0.5) * scale;
  const first = Math.max(Math.trunc(centre - support + 0.5), 0);
  const end = Math.min(Math.trunc(centre + support + 0.5), given);
  const weights = [];
  for (let tap = first; tap < end; tap++) weights.push(Math.max(1 - Math.abs((tap - centre + 0.5) / support), 0));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return { first, weights: Int32Array.from(weights, (weight) => (weight / sum) * (1 << 22) + 0.5) };
}
