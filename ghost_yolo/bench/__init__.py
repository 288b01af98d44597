"""Measure latency in the runtimes in which models are deployed."""
