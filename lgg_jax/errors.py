"""UserError: an error that the user can fix; printed as one line, exit code 2.

    raise UserError("no such folder: scans/ (--data_dir)", "pass the folder that holds the patient folders")

Any other exception is a bug and keeps its traceback.
"""

import os
from errno import EDQUOT, EFBIG, ENOSPC


class UserError(Exception):
    """An error that the user can fix.

    Args:
      wrong: what is wrong, and where.
      remedy: what to do about it.
    """

    def __init__(self, wrong: str, remedy: str):
        super().__init__(f"{wrong}; {remedy}")


def disk_full(error: BaseException) -> bool:
    """Return whether an error reports a full disk. TensorFlow and Orbax report that only in the error's text."""
    return any(os.strerror(code) in str(error) for code in (ENOSPC, EDQUOT, EFBIG))
