"""Ways of drawing responses from a model. Each says which distribution it targets, and whether exactly."""
