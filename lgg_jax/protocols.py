"""Interfaces of modules, checked when a module is listed.

    class Task(Protocol):
        SCORE: str
        def validate(self, predict, variables, cases): ...

    TASKS = {"segmentation": provides(segmentation, Task)}      # TypeError where segmentation.py lacks `validate`
"""

import inspect
from types import ModuleType


def provides(module: ModuleType, protocol: type) -> ModuleType:
    """The module itself, if it has everything that `protocol` declares.

    A function must take the same number of arguments as its declaration.

    Raises:
      TypeError: a constant or a function is missing, or a function takes other arguments. It names all of them.
    """
    declared = {name: member for name, member in vars(protocol).items() if inspect.isfunction(member)}
    functions = {name: member for name, member in declared.items() if not name.startswith("_")}
    wanted = [*inspect.get_annotations(protocol), *functions]
    problems = [f"{name} is missing" for name in wanted if not hasattr(module, name)]
    for name, member in functions.items():
        takes = len(inspect.signature(member).parameters) - 1  # without self
        if hasattr(module, name) and (given := len(inspect.signature(getattr(module, name)).parameters)) != takes:
            problems.append(f"{name} takes {given} arguments, not {takes}")
    if problems:
        raise TypeError(f"{module.__name__} is no {protocol.__name__}: {', '.join(problems)}")
    return module
