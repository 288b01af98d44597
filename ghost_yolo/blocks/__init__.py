"""The blocks, one family a file; their table is `ghost_yolo.registry.BLOCKS`."""
