"""Policies over the choice sequence, and the two ways to train them: REINFORCE and PPO."""
