"""What several nodes share: inputs, defaults and outputs."""
