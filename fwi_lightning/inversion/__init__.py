"""After the network: what a prediction is worth, and how to make it better."""
