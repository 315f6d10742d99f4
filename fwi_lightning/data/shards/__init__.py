"""Shards: samples as tar files in WebDataset's format, for data that is large, on a network, or behind a URL."""
