// Browsers give WebAssembly threads only to pages that are isolated from other sites by two headers.

/** Get the headers from the service worker beside this page; true where the page loads again for it. */
export async function isolate() {
  if (crossOriginIsolated || !navigator.serviceWorker) return false;
  try {
    if (sessionStorage.getItem("isolated")) return false; // once: a browser may refuse all the same
    await navigator.serviceWorker.register("sw.js");
    await navigator.serviceWorker.ready;
    sessionStorage.setItem("isolated", "tried");
  } catch {
    return false; // a browser that stores nothing, for example
  }
  location.reload();
  return true;
}

/** Say whether there are threads, and what to do where there are none. */
export function describeIsolation() {
  if (crossOriginIsolated) return "Threads: this page is isolated from other sites, so WebAssembly may use several.";
  if (!isSecureContext) {
    return (
      "Threads: only one. Browsers give threads, WebGPU and camera only to pages from https or localhost. " +
      "An Android phone on a USB cable: adb reverse tcp:8000 tcp:8000, then open http://localhost:8000 on it."
    );
  }
  return (
    "Threads: only one. Serve this folder with the headers Cross-Origin-Opener-Policy: same-origin and " +
    "Cross-Origin-Embedder-Policy: require-corp, or let the browser run the service worker sw.js."
  );
}

/** Return the numbers of threads to choose from, and the one to begin with (onnxruntime-web's own choice). */
export function threadCounts() {
  if (!crossOriginIsolated) return { counts: [1], first: 1 };
  const cpus = navigator.hardwareConcurrency || 1;
  const counts = [...new Set([1, 2, 4, 6, 8, Math.ceil(cpus / 2), cpus])].filter((count) => count <= cpus);
  return { counts: counts.sort((one, other) => one - other), first: Math.min(4, Math.ceil(cpus / 2)) };
}
