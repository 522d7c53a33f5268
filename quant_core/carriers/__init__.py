"""Outside ComfyUI: quantized weights as torchao tensors on plain modules."""
