"""A trained model in, the same model with light blocks out, each fitted to the block that it replaces, without labels."""
