"""Files to arrays and back: slides, pyramids, tile and pair stores; no mathematics."""
