"""Reading a nequip-allegro model with its own code, in a process of its own.

This folder is copied to a temporary place and run there by the interpreter that has nequip installed, which need not
have asenequip: nothing of it is imported. It leaves ``weights.safetensors`` and ``description.json`` behind, or
``refusal.json``; no pickle comes back.
"""
