"""Raw data to tensors and back; what a run saves and everything downstream uses."""
