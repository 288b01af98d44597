// The thread in which the networks run, so that the page stays alive: loads onnxruntime-web and the models, and finds.
// Messages: {kind: "open", engine, threads, ort, models} -> {kind: "opened", engine, threads, notes, errors}
//           {kind: "find", photo, conf, rounds, budget} -> {kind: "found", results} after the first round and after the last
//           whatever fails -> {kind: "failed", message}

import { find } from "./detector.js";

const ENGINES = {
  wasm: { script: "ort.wasm.bundle.min.mjs", binary: "ort-wasm-simd-threaded.wasm" },
  webgpu: { script: "ort.webgpu.bundle.min.mjs", binary: "ort-wasm-simd-threaded.asyncify.wasm" },
};
const LEAST = 3; // timed rounds of a photograph, however slow
let opened = []; // {known, network} for each model, null for one that failed

/** Fetch a file whose content must have a SHA-256; browsers refuse any other. */
async function fetchChecked(url, integrity) {
  const name = url.split("/").pop();
  try {
    const answer = await fetch(url, { integrity, cache: "no-cache" });
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    return await answer.arrayBuffer();
  } catch (error) {
    throw new Error(
      `${name} cannot be loaded, or is not the file that models.json lists (${error.message}): ` +
        "check the connection, and that the folder was copied whole",
    );
  }
}

/** Load onnxruntime-web for an engine from checked bytes, so that a file on a public server can be trusted. */
async function loadRuntime(engine, threads, ort) {
  const { script, binary } = ENGINES[engine];
  const files = [script, binary].map((name) => fetchChecked(new URL(ort.base + name, ort.page).href, ort.files[name]));
  const [code, wasmBinary] = await Promise.all(files);
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" })); // its threads load it again: kept
  const runtime = await import(url);
  Object.assign(runtime.env.wasm, { numThreads: threads, wasmBinary });
  return runtime;
}

/** Return the engine that can be had, with a note where it is not the one asked for. */
async function availableEngine(wanted, notes) {
  if (wanted !== "webgpu") return wanted;
  if (!navigator.gpu) {
    const why = isSecureContext ? "this browser has no WebGPU" : "browsers give WebGPU only to https and localhost";
    notes.push(`WebGPU: ${why}. WebAssembly is used.`);
    return "wasm";
  }
  if (await navigator.gpu.requestAdapter()) return "webgpu";
  notes.push("WebGPU: this browser finds no graphics adapter. WebAssembly is used.");
  return "wasm";
}

/** Return a function from the network's image to its outputs. */
async function openNetwork(runtime, engine, model) {
  const content = new Uint8Array(await fetchChecked(model.url, model.integrity));
  const session = await runtime.InferenceSession.create(content, { executionProviders: [engine] });
  const [input] = session.inputNames;
  const shape = [1, 3, ...model.known.imgsz];
  return async (planes) => {
    const outputs = await session.run({ [input]: new runtime.Tensor("float32", planes, shape) });
    return session.outputNames.map((name) => outputs[name]);
  };
}

/** Load all models with an engine; one that fails does not keep the others from working. */
async function openAll(engine, { threads, ort, models }) {
  const runtime = await loadRuntime(engine, threads, ort);
  const errors = [];
  opened = [];
  for (const model of models) {
    try {
      opened.push({ known: model.known, network: await openNetwork(runtime, engine, model) });
    } catch (error) {
      opened.push(null);
      errors.push(`${model.title}: ${error.message}`);
    }
  }
  return errors;
}

/** Open the engine asked for, or WebAssembly where WebGPU fails. */
async function open(request) {
  const notes = [];
  let engine = await availableEngine(request.engine, notes);
  let errors = [];
  try {
    errors = await openAll(engine, request);
  } catch (error) {
    if (engine === "wasm") throw error;
    errors = [error.message];
  }
  if (engine === "webgpu" && errors.length) {
    notes.push(`WebGPU: ${errors[0]}. WebAssembly is used.`);
    engine = "wasm";
    errors = await openAll(engine, request);
  }
  postMessage({ kind: "opened", engine, threads: request.threads, notes, errors });
}

/** Find in a photograph with every model in turn: once, and then timed rounds until their number, or LEAST and the time, is over. */
async function findAll({ photo, conf, rounds, budget }) {
  const results = opened.map((one) => (one ? { found: [], times: [] } : null));
  const start = performance.now();
  for (let round = 0; round <= rounds; round++) {
    for (const [i, one] of opened.entries()) {
      if (!one) continue;
      const { found, times } = await find(photo, one.network, one.known, conf);
      results[i].found = found;
      if (round || !rounds) results[i].times.push(times); // the first of several is slower: memory is not there yet
    }
    const last = round === rounds || (round >= LEAST && performance.now() - start > budget);
    if (last || !round) postMessage({ kind: "found", results, last });
    if (last) return;
  }
}

onmessage = async ({ data }) => {
  try {
    await (data.kind === "open" ? open(data) : findAll(data));
  } catch (error) {
    postMessage({ kind: "failed", message: error?.message ?? String(error) });
  }
};
