"""A quantized MODEL to a file."""
