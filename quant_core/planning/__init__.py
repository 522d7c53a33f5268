"""Decides for every layer, before any weight is read, which format it gets or why it is kept."""
