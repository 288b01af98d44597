"""The report: one HTML page with the published table, model sizes, latency and accuracy."""
