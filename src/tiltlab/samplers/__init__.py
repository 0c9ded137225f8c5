"""Ways of drawing responses from a model. Each says which law it targets, and whether exactly."""
