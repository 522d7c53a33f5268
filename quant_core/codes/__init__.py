"""Codes: how numbers become few bits, whatever format they are for, and how bits become bytes."""
