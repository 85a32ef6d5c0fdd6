"""The machinery of a training: the loop, and the parts that a model has."""
