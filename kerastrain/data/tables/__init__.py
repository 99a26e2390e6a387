"""Tables: CSV and Parquet, inferred schema, encoding by Keras layers."""
