"""What an architecture is, which ones exist, and what one costs; loads neither torch nor ray nor pandas."""
