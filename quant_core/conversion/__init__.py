"""A model file to a quantized one, a layer at a time, without building the model."""
