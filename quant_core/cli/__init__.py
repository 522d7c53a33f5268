"""The command line: ``python -m quant_core.cli``, or ``graphquant`` where it is installed."""
