"""Everything that ties quant_core to ComfyUI: tensors, models, LoRAs, files. No node lives here."""
