"""Where weights come from and go to: starting weights, adapters, and model folders."""
