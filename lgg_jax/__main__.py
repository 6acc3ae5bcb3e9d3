"""Command line: `python -m lgg_jax VERB --flag=value …`.

Exit codes: 0 success; 1 `check` found an error in the data; 2 an error that the user can fix, printed as one line.
"""

import importlib
import os
import re
import sys
from pathlib import Path

from absl import flags

from lgg_jax.errors import UserError, disk_full

VERBS = {
    "check": ("lgg_jax.check", "check a data set for missing, unreadable or inconsistent files"),
    "explore": ("lgg_jax.explore", "describe a data set on an HTML page with figures"),
    "synthesize": ("lgg_jax.synthesize", "write synthetic data (phantoms) in the kaggle_3m layout"),
    "train": ("lgg_jax.train", "train a model, or resume a training"),
    "convert": ("lgg_jax.convert", "convert ImageNet weights of ResNet50 from Keras, torchvision or TF.js"),
    "evaluate": ("lgg_jax.evaluate", "score a checkpoint: metrics.json, cases.csv, figures"),
    "predict": ("lgg_jax.predict", "segment and grade new scans: TIFF, NIfTI or DICOM"),
    "report": ("lgg_jax.report", "compare one or more runs on an HTML page"),
    "export": ("lgg_jax.export", "export a run for JAX and TensorFlow without this package"),
}
NEED_TENSORFLOW = ("explore", "train", "evaluate", "predict", "export")


def usage() -> str:
    """Return the text that `--help` prints without a verb."""
    verbs = "\n".join(f"  {name:12}{summary}" for name, (_, summary) in VERBS.items())
    return f"usage: python -m lgg_jax VERB --flag=value …\n\n{verbs}\n\nFlags of a verb: python -m lgg_jax VERB --help"


def command() -> None:
    """Run the console script `lgg-jax`."""
    use_huge_pages()
    run()


def use_huge_pages() -> None:
    """On Linux, restart this process with pages of 2 MB instead of 4 kB for large arrays.

    A training step on a CPU allocates and frees several hundred MB. Clearing small pages took a fifth of its time.
    glibc reads the setting only when a process starts (glibc manual, Memory Allocation Tunables). If GLIBC_TUNABLES is
    already set, to any value, nothing changes.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ and set(sys.argv[1:2]) & set(NEED_TENSORFLOW):
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def run() -> None:
    """Run the verb and exit with its exit code."""
    try:
        sys.exit(main(sys.argv))
    except UserError as error:
        print(f"lgg_jax: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("lgg_jax: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not disk_full(error):
            raise
        reason = " ".join(str(error).split())[:300]
        print(f"lgg_jax: error: no space left ({reason}); free some and run the same command again", file=sys.stderr)
        sys.exit(2)


def main(argv: list[str]) -> int:
    """Run the verb `argv[1]` with the flags after it and return the exit code."""
    if len(argv) > 1 and argv[1] in ("-h", "--help", "help"):
        print(usage())
        return 0
    verb = argv[1] if len(argv) > 1 else None
    if verb not in VERBS:
        wrong = f"{verb!r} is not a verb" if verb else "no verb given"
        raise UserError(wrong, f"use one of {', '.join(VERBS)}, or --help")
    sys.path.append(str(Path(__file__).parents[1]))  # `configs` can then be imported from any working directory.
    if verb in NEED_TENSORFLOW:
        import_tensorflow()
    module = importlib.import_module(VERBS[verb][0])
    values = parse(module, argv)
    return 0 if values is None else module.main(values)


def parse(module, argv: list[str]) -> flags.FlagValues | None:
    """Return the verb's flags, or None after printing them for `--help`."""
    values = flags.FlagValues()
    absl_flags = set(values)
    module.define_flags(values)
    own = [name for name in values if name not in absl_flags]
    if {"-h", "--help"} & set(argv[2:]):
        listing = "\n".join(f"  --{name}: {describe(values[name])}" for name in own)
        print(f"{module.__doc__.strip()}\n\nflags:\n{listing}")
        return None
    if "config" in own:
        values["config"].parser = ConfigFileParser()
    try:
        rest = values(argv[1:])
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        # For an unknown config field or a value of another type, ml_collections raises built-in exceptions.
        raise UserError(explain(error), f"see python -m lgg_jax {argv[1]} --help") from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not a flag", "write flags as --name=value")
    return values


def describe(flag: flags.Flag) -> str:
    """Return the help text of a flag with its default, or with "required"."""
    required = flag.value is None and bool(flag.validators)
    default = "required" if required else f"default: {flag.value!r}"
    return f"{' '.join(flag.help.split())} ({default})"


class ConfigFileParser(flags.ArgumentParser):
    """Parser of `--config` that uses `config.load`.

    The errors of `config.load` name the line of the config file; those of ml_collections' parser do not.
    """

    def parse(self, path: str):
        """Return the config in the file `path`."""
        from lgg_jax.config import load  # Imports JAX, which some verbs do not need.

        return load(path)


def explain(error: Exception) -> str:
    """Return one line that says why the flags cannot be parsed."""
    line = " ".join(str(error).replace("\\n", " ").replace("\\", "").split()).rstrip(".")
    if missing := re.match(r"flag --(\w+)=None: Flag --\w+ must have a value", line):
        return f"--{missing[1]} is not given"
    unknown = re.match(r"\W*'(\w+)'\W*(?=Did|$)", line)
    if not unknown:
        return line
    hint = line[unknown.end() :].strip("'\"")
    return f"no config field is named {unknown[1]!r}" + (f" ({hint})" if hint else "")


def import_tensorflow() -> None:
    """Import TensorFlow without its start-up messages and without access to accelerators.

    TensorFlow only runs the input pipeline. It would otherwise take all of a GPU's memory from JAX, and its oneDNN
    kernels would make the pipeline's numbers depend on the processor. Its C++ code writes to file descriptor 2 before
    any of its settings apply, so that descriptor is redirected during the import. Python errors are raised as usual.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    stderr = os.dup(2)
    with open(os.devnull, "w") as devnull:
        os.dup2(devnull.fileno(), 2)
    try:
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


if __name__ == "__main__":
    command()
