"""Model files: presets, the format, the original's files, loading, converting, fetching."""
