"""The timing loop, its inputs and whether a reading is stable."""
