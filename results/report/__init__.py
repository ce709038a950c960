"""Report of a run as one page: facts, charts, templates, and the comparison of several runs."""
