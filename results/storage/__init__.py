"""A run on disk: its journal and the state it adds up to, its other files, who may write them, and its mirror."""
