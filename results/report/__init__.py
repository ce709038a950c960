"""The report of a run: facts, figures, the page, and several runs compared on one page."""
