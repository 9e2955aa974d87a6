"""Learning from rewards: groups of answers by the current weights, compared with each other."""
