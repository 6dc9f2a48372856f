"""Models of physicists: fields, qubits and cavities, oscillators, spins; each beside its exact answer."""
