"""Files and data sets as rows: text, JSON, CSV, Parquet, archives and the hub."""
