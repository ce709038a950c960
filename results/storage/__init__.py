"""A run on disk: its journal and the state it adds up to, its other files, its ownership, and its mirror."""
