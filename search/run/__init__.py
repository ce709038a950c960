"""One run: starting, resuming and driving it, and what it is made of."""
