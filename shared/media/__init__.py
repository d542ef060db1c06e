"""Media files: stored once for each owner and content, taken from direct uploads, removed when no row needs them."""
