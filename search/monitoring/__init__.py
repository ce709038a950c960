"""Shows a running search: display, forecast and TensorBoard files."""
