"""What the machine at hand can run, and how fast."""
