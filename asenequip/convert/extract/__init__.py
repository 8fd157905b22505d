"""Reading a nequip-allegro model with its own code, in a process of its own.

This folder is copied next to nothing else and run by the interpreter that has nequip installed; it imports nothing of
asenequip. It leaves ``weights.safetensors`` and ``description.json`` behind, or ``refusal.json``; no pickle comes back.
"""
