"""Policies over the choice sequence, and two ways to train them: REINFORCE and PPO."""
