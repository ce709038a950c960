"""What a running search shows: the display, the forecast, TensorBoard."""
