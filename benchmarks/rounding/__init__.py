"""What each way of rounding costs on models that nobody tuned for, beside other tools."""
