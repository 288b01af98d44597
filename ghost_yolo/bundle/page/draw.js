// Draws a photograph and what is found in it on a canvas.

const COLOURS = ["#ff3838", "#cfd231", "#48f90a", "#00c2ff", "#0018ec", "#520085", "#ff37c7"]; // those of run.py
const SIDE = 1280; // pixels of the canvas at most, which bounds its memory on a phone

/** Draw an image (anything a canvas takes) of some size with the objects found in it. */
export function draw(canvas, image, { width, height }, found) {
  const scale = Math.min(1, SIDE / Math.max(width, height));
  canvas.width = Math.max(Math.round(width * scale), 1);
  canvas.height = Math.max(Math.round(height * scale), 1);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const shown = Math.min(canvas.clientWidth / canvas.width, canvas.clientHeight / canvas.height) || 1;
  const unit = (canvas.clientWidth < 500 ? 0.85 : 1) / shown; // canvas pixels of a line as it is seen
  const boxed = found.filter(({ box }) => box).reverse(); // the surest last, on top
  for (const one of boxed) drawObject(context, one, scale, unit);
  for (const one of boxed) drawLabel(context, one, scale, unit);
}

/** Return the colour of a class. */
export function colourOf(one) {
  return COLOURS[one.class % COLOURS.length];
}

/** Draw outline, mask and keypoints. */
function drawObject(context, one, scale, unit) {
  const colour = colourOf(one);
  if (one.mask) drawMask(context, one.mask, scale, colour);
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = 2 * unit;
  context.beginPath();
  const [x1, y1, x2, y2] = one.box;
  const corners = one.corners ?? [[x1, y1], [x2, y1], [x2, y2], [x1, y2]];
  for (const [x, y] of corners) context.lineTo(x * scale, y * scale);
  context.closePath();
  context.stroke();
  for (const [x, y, seen = 1] of one.keypoints ?? []) {
    if (seen <= 0.5) continue;
    context.beginPath();
    context.arc(x * scale, y * scale, 3 * unit, 0, 2 * Math.PI);
    context.fill();
  }
}

/** Lay a mask over the photograph, half transparent. */
function drawMask(context, mask, scale, colour) {
  const layer = new OffscreenCanvas(mask.width, mask.height);
  const inner = layer.getContext("2d");
  const pixels = inner.createImageData(mask.width, mask.height);
  const [red, green, blue] = [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
  mask.bits.forEach((bit, i) => bit && pixels.data.set([red, green, blue, 110], 4 * i));
  inner.putImageData(pixels, 0, 0);
  context.drawImage(layer, ...[...mask.place, ...mask.extent].map((value) => value * scale));
}

/** Write name and score above a box, or inside where there is no room. */
function drawLabel(context, one, scale, unit) {
  const size = 12 * unit;
  context.font = `600 ${size}px system-ui, sans-serif`;
  const text = `${one.name} ${one.score.toFixed(2)}`;
  const width = context.measureText(text).width + size * 0.6;
  const left = Math.max(Math.min(one.box[0] * scale, context.canvas.width - width), 0);
  const top = Math.max(one.box[1] * scale - size * 1.3, 0);
  context.fillStyle = colourOf(one);
  context.fillRect(left, top, width, size * 1.3);
  context.fillStyle = isLight(colourOf(one)) ? "#000" : "#fff";
  context.fillText(text, left + size * 0.3, top + size);
}

/** Return whether black reads better than white on a colour. */
function isLight(colour) {
  const [red, green, blue] = [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
}
