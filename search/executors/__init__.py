"""Where trials run: in this process, in Ray actors, or under Ray Tune."""
