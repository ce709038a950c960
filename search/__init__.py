"""Running a search: configuration, presets, the loop, executors and the command line."""
