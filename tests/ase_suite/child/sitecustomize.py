"""Read by every Python that the suite starts: there too, EMT is replaced, as soon as its module is imported."""

import importlib.abc
import importlib.util
import sys

NAME = "ase.calculators.emt"


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != NAME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(NAME)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            from allegro_emt import replace

            replace(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Finder())
