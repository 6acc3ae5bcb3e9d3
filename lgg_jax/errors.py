"""The one exception that means: the user can mend this.

    raise UserError("no such folder: scans/ (--data_dir)", "pass the folder that holds the patient folders")

`__main__` prints it as a single line and ends with exit code 2; anything else is a bug and keeps its traceback.
"""

import os
from errno import EDQUOT, EFBIG, ENOSPC


class UserError(Exception):
    """What is wrong and where, then what to do about it."""

    def __init__(self, wrong: str, remedy: str):
        super().__init__(f"{wrong}; {remedy}")


def disk_full(error: BaseException) -> bool:
    """Whether the error says that there is no space: TensorFlow and Orbax say so by its text alone."""
    return any(os.strerror(code) in str(error) for code in (ENOSPC, EDQUOT, EFBIG))
