"""Before a search: does everything work, and what will it take?"""
