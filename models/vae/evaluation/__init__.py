"""What a trained VAE is worth: bounds, use of its latents, gaps, anomalies, a linear baseline."""
