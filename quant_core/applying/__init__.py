"""Carries a plan out: reads, quantizes and attaches one layer after another."""
