"""LoRAs and other adapters beside quantized weights, without rounding the weights again."""
