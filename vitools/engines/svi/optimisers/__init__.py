"""Steps of gradient ascent: Adam, natural gradients, the user's own optimiser, their schedules."""
