"""Any architecture of the library transformers, under our names."""
