"""One folder with a model, a runner that needs no torch, and the proof: `bundle(...)` writes it."""
