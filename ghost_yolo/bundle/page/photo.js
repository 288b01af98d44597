// Photographs from files and from the camera, as RGBA bytes.

const MOST = 16e6; // pixels of a canvas that phones give
const DECODED = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };

/** Return a canvas with an image on it, and its bytes. */
function pixelsOf(image, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  return { image: canvas, width, height, data: context.getImageData(0, 0, width, height).data };
}

/** Read a photograph, turned as its EXIF data say; one too large for a canvas is shrunk, and says so in `note`. */
export async function readPhoto(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, DECODED);
  } catch {
    throw new Error(`${file.name || "this file"} cannot be read as an image: give JPEG, PNG or WebP`);
  }
  const shrunk = Math.min(1, Math.sqrt(MOST / (bitmap.width * bitmap.height)));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(Math.floor(side * shrunk), 1));
  const note = shrunk < 1 ? `The photograph of ${bitmap.width} x ${bitmap.height} is shrunk to ${width} x ${height}.` : "";
  const photo = pixelsOf(bitmap, width, height);
  bitmap.close();
  return { ...photo, name: file.name, note };
}

/** The camera, the one at the back of a phone. */
export class Camera {
  /** Open it; an error says why it cannot be had. */
  async open() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("no camera: browsers give it only to pages from https or localhost");
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
    } catch (error) {
      const reasons = { NotAllowedError: "its use was not allowed", NotFoundError: "there is none" };
      throw new Error(`no camera: ${reasons[error.name] ?? error.message}`);
    }
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    this.video.srcObject = this.stream;
    await this.video.play();
  }

  /** Return the picture that it shows now; one that was pulled out would show its last one for ever. */
  read() {
    if (this.stream.getVideoTracks().some(({ readyState }) => readyState === "ended")) {
      throw new Error("the camera gives no more pictures: is it still connected, and used by no other program?");
    }
    return { ...pixelsOf(this.video, this.video.videoWidth, this.video.videoHeight), name: "camera", note: "" };
  }

  /** Close it. */
  close() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
  }
}
