"""Full waveform inversion on PyTorch Lightning: shot gathers in, velocity map out."""
