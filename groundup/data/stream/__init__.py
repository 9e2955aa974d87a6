"""Batches in the order of a run: packing, shards, and the keyed permutation."""
