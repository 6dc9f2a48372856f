"""The log joint over many draws at once, discrete latents summed out."""
