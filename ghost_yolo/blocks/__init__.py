"""The blocks, one family a file; their table is `ghost_yolo.registry.BLOCKS`."""

import ultralytics  # noqa: F401 (whole, before any part of it: another thread may be importing it just now)
