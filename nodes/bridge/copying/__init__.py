"""A second tree of modules over the same parameters, and what must follow a model into it."""
