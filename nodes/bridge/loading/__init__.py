"""Quantized files to a MODEL."""
