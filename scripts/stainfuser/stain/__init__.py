"""Arrays to arrays: tissue, optical density, stain statistics, operators and metrics; no files."""
