// The page: settings, photographs and camera in; cards with boxes and milliseconds out. The networks run in worker.js.

import { fillCard, makeCard, medians } from "./cards.js";
import { TASKS } from "./detector.js";
import { describeIsolation, isolate, threadCounts } from "./isolation.js";
import { Networks } from "./networks.js";
import { Camera, readPhoto } from "./photo.js";

const ROUNDS = 10; // timed, of a photograph
const BUDGET = 5000; // milliseconds after which no further round begins, but for the first three
const FRAMES = 30; // of the camera, whose times the median is taken of
const byId = (id) => document.getElementById(id);
const networks = new Networks(showFound);
const state = { config: null, how: "", notes: [], photo: null, camera: null, cards: [] };

/** Show a text in an element, which is hidden without one. */
function say(id, text) {
  byId(id).textContent = text;
  byId(id).hidden = !text;
}

/** Show an error, and go on; null stands for a question that another one has replaced. */
function fail(error) {
  if (error === null) return;
  say("error", error?.message ?? String(error));
  byId("status").textContent = "";
}

/** Show what to know though nothing failed: of the engine, and of the photograph. */
function showNotes() {
  const notes = [...state.notes, ...(state.photo?.note ? [state.photo.note] : [])];
  byId("notes").replaceChildren(...notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
  byId("notes").hidden = !notes.length;
}

// ---- Engine and models ----------------------------------------------------------------------------------------------

/** Return the file of a model that is chosen; a model without that precision has its first. */
function chosenFile(model) {
  return model.files.find(({ precision }) => precision === byId("precision").value) ?? model.files[0];
}

/** Start the engine and the models that the settings say. */
async function start() {
  say("error", "");
  byId("status").textContent = "Loading runtime and models…";
  for (const id of ["choose", "camera"]) byId(id).disabled = true;
  if (state.camera) state.camera.times = [];
  const models = state.config.models.map((model) => {
    const { name, integrity } = chosenFile(model);
    return { title: model.title, url: new URL(name, location.href).href, integrity, known: model.description };
  });
  const ort = { ...state.config.ort, page: location.href };
  try {
    const threads = Number(byId("threads").value);
    showOpened(await networks.open({ engine: byId("engine").value, threads, ort, models }));
  } catch (error) {
    fail(error);
    return;
  }
  if (state.photo && !state.camera) await findPhoto();
}

/** Show that the models are there. */
function showOpened({ engine, threads, notes, errors }) {
  byId("engine").value = engine;
  state.notes = notes;
  showNotes();
  say("error", errors.join("; "));
  const works = errors.length < state.config.models.length;
  for (const id of ["choose", "camera"]) byId(id).disabled = !works;
  state.how = engine === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} thread${threads > 1 ? "s" : ""}`;
  byId("status").textContent = works ? `Ready: ${state.how}.` : "";
  state.cards = state.config.models.map((model) => {
    const { precision, mb } = chosenFile(model);
    const { task, imgsz } = model.description;
    return makeCard(model.title, `${precision}, ${mb.toFixed(1)} MB, ${task} at ${imgsz[0]} x ${imgsz[1]}`);
  });
  byId("cards").replaceChildren(...state.cards.map(({ root }) => root));
}

// ---- Finding --------------------------------------------------------------------------------------------------------

/** Find in a picture: timed rounds of a photograph, which is kept, or one of a frame, whose bytes move. */
function find(photo, rounds) {
  const { width, height } = photo;
  const data = rounds ? new Uint8ClampedArray(photo.data) : photo.data;
  const conf = Number(byId("conf").value) || state.config.models[0].description.conf;
  const of = { shown: photo, camera: rounds ? null : state.camera };
  return networks.find({ photo: { width, height, data }, conf, rounds, budget: BUDGET }, [data.buffer], of);
}

/** Find in the photograph that was given. */
async function findPhoto() {
  const { photo } = state;
  const isShown = () => state.photo === photo && !state.camera; // not replaced while it was looked at
  byId("status").textContent = "Finding…";
  try {
    await find(photo, ROUNDS);
    if (isShown()) byId("status").textContent = `${photo.name}: ${photo.width} x ${photo.height}. ${state.how}.`;
  } catch (error) {
    if (isShown()) fail(error);
  }
}

/** Show what was found, of the camera with the times of the last frames; not of a picture that another one has replaced. */
function showFound({ results, last }, { shown, camera }) {
  if (camera !== state.camera || (!camera && shown !== state.photo)) return;
  const { config } = state;
  results.forEach((result, i) => {
    if (!result) return;
    if (camera) result.times = camera.times[i] = [...(camera.times[i] ?? []), ...result.times].slice(-FRAMES);
    fillCard(state.cards[i], shown.image, shown, result);
  });
  if (!last) return;
  const models = config.models.map((model, i) => ({ model: model.title, file: chosenFile(model).name, ...summary(results[i]) }));
  const json = { image: shown.name, engine: state.how, browser: navigator.userAgent, models };
  byId("json").textContent = JSON.stringify(json, null, 1);
  byId("json-part").hidden = false;
}

/** Return a result as the page's JSON has it: without masks, which are drawn only. */
function summary(result) {
  if (!result) return { found: null };
  const found = result.found.map(({ mask, ...one }) => one);
  return { median_ms: medians(result.times), rounds: result.times.length, found };
}

/** Take a file that was dropped or chosen. */
async function take(file) {
  if (!file) return;
  closeCamera();
  say("error", "");
  byId("json-part").hidden = true;
  try {
    state.photo = await readPhoto(file);
  } catch (error) {
    fail(error);
    return;
  }
  showNotes();
  await findPhoto();
}

// ---- Camera ---------------------------------------------------------------------------------------------------------

/** Open the camera, or close it. */
async function toggleCamera() {
  if (state.camera) {
    closeCamera();
    return;
  }
  say("error", "");
  const camera = new Camera();
  byId("camera").disabled = true; // a second one would stay open
  try {
    await camera.open();
  } catch (error) {
    fail(error);
    return;
  } finally {
    byId("camera").disabled = byId("choose").disabled;
  }
  state.camera = Object.assign(camera, { times: [] });
  byId("camera").textContent = "Close the camera";
  await watch(camera);
}

/** Find in the camera's pictures until it is closed. */
async function watch(camera) {
  while (state.camera === camera) {
    try {
      await find(camera.read(), 0);
      byId("status").textContent = `Camera: ${camera.video.videoWidth} x ${camera.video.videoHeight}. ${state.how}.`;
    } catch (error) {
      if (error) closeCamera();
      fail(error);
    }
    await new Promise(requestAnimationFrame);
  }
}

/** Close the camera. */
function closeCamera() {
  state.camera?.close();
  state.camera = null;
  byId("camera").textContent = "Open the camera";
}

// ---- Start ----------------------------------------------------------------------------------------------------------

/** Read models.json, which says what there is. */
async function readConfig() {
  let config;
  try {
    const answer = await fetch("models.json", { cache: "no-cache" });
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    config = await answer.json();
  } catch (error) {
    throw new Error(`models.json cannot be read (${error.message}): copy the folder again, whole`);
  }
  const unknown = config.models.find(({ description }) => !TASKS.includes(description.task));
  if (unknown) throw new Error(`${unknown.title}: this page knows ${TASKS.join(", ")}, not ${unknown.description.task}`);
  return config;
}

/** Show what models.json says. */
function showConfig({ models, ort }) {
  const [{ description, files }] = models;
  byId("title").textContent = models.map(({ title }) => title).join(" beside ");
  document.title = byId("title").textContent;
  byId("precision").replaceChildren(...files.map(({ precision }) => new Option(precision, precision)));
  byId("precision-label").hidden = files.length < 2;
  byId("conf").value = description.conf;
  byId("conf-label").hidden = models.every((model) => model.description.task === "classify");
  const { counts, first } = threadCounts();
  byId("threads").replaceChildren(...counts.map((count) => new Option(count, count)));
  byId("threads").value = first;
  const cpus = navigator.hardwareConcurrency ?? "unknown";
  byId("machine").textContent = `onnxruntime-web ${ort.version}. Logical CPUs: ${cpus}. Milliseconds are those of this device and browser.`;
  byId("isolation").textContent = describeIsolation();
}

/** Wire the elements. */
function wire() {
  const { classList } = byId("drop");
  byId("choose").onclick = () => byId("file").click();
  byId("file").onchange = ({ target }) => take(target.files[0]).finally(() => (target.value = ""));
  byId("camera").onclick = toggleCamera;
  byId("settings").onsubmit = (event) => event.preventDefault();
  for (const id of ["engine", "threads", "precision"]) byId(id).onchange = start;
  byId("conf").onchange = () => state.photo && !state.camera && findPhoto();
  document.ondragleave = () => classList.remove("over");
  document.ondragover = (event) => {
    event.preventDefault();
    classList.add("over");
  };
  document.ondrop = (event) => {
    event.preventDefault();
    classList.remove("over");
    if (!byId("choose").disabled) take(event.dataTransfer.files[0]);
  };
}

try {
  if (!(await isolate())) {
    state.config = await readConfig();
    showConfig(state.config);
    wire();
    await start();
  }
} catch (error) {
  byId("title").textContent = "ghost_yolo in the browser";
  fail(error);
}
