"""Networks for encoded tables: features, bodies, heads; each a function on Keras tensors."""
