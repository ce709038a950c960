"""Planning a search: preflight checks, estimates of time and cost, predicted cost of trials."""
