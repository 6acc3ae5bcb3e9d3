"""Interfaces of modules, checked at import.

    class Task(Protocol):
        SCORE: str
        def validate(self, predict, variables, cases): ...

    TASKS = {"segmentation": provides(segmentation, Task)}      # TypeError if segmentation.py has no `validate`
"""

import inspect
from types import ModuleType


def provides(module: ModuleType, protocol: type) -> ModuleType:
    """Return `module` if it has every constant and function that `protocol` declares.

    A function must take the same number of arguments as its declaration.

    Raises:
      TypeError: a constant or a function is missing, or a function takes another number of arguments. The message
        lists all of them.
    """
    declared = {name: member for name, member in vars(protocol).items() if inspect.isfunction(member)}
    functions = {name: member for name, member in declared.items() if not name.startswith("_")}
    required = [*inspect.get_annotations(protocol), *functions]
    problems = [f"{name} is missing" for name in required if not hasattr(module, name)]
    for name, member in functions.items():
        expected = len(inspect.signature(member).parameters) - 1  # without self
        if hasattr(module, name) and (count := len(inspect.signature(getattr(module, name)).parameters)) != expected:
            problems.append(f"{name} takes {count} arguments, not {expected}")
    if problems:
        raise TypeError(f"{module.__name__} does not provide {protocol.__name__}: {', '.join(problems)}")
    return module
