"""Raw kernels of the tensor track: knows irreps and arrays, knows no atoms and no model."""
