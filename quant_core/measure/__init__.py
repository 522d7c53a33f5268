"""What quantization costs, in figures: of weights, of layers' outputs, of calls and of pictures."""
