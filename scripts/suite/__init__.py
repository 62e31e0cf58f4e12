"""The measurements behind docs/results-*.md, stage by stage, on whatever device is at hand; started by scripts/gpu_suite.py."""
