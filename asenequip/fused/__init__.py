"""The whole potential as one generated C++ function per architecture: the fast path on a CPU."""
