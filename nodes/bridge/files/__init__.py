"""What every file of ours shares: where it lies, where it came from, and the report about it."""
