"""`python -m lgg_jax VERB --flag=value …`: picks the verb, nothing else.

Exit codes: 0 done, 1 `check` found an error in the data, 2 something the user can mend, said in one line.
"""

import importlib
import os
import re
import sys
from pathlib import Path

from absl import flags

from lgg_jax.errors import UserError, disk_full

VERBS = {
    "check": ("lgg_jax.check", "is this data set whole? what is odd in it?"),
    "explore": ("lgg_jax.explore", "describe the data: figures and a page"),
    "synthesize": ("lgg_jax.synthesize", "write phantom data in the kaggle_3m layout"),
    "train": ("lgg_jax.train", "train, or go on with a training"),
    "convert": ("lgg_jax.convert", "ImageNet weights of a ResNet50, from Keras, torchvision or TF.js, to one file"),
    "evaluate": ("lgg_jax.evaluate", "score a restored checkpoint: metrics.json, cases.csv, figures"),
    "predict": ("lgg_jax.predict", "outline and grade new scans: TIFF, NIfTI or DICOM"),
    "report": ("lgg_jax.report", "one page on one or more trainings"),
    "export": ("lgg_jax.export", "the model with its preprocessing, for JAX and TensorFlow without this package"),
}
NEED_TENSORFLOW = ("explore", "train", "evaluate", "predict", "export")


def usage() -> str:
    """What `--help` prints without a verb."""
    verbs = "\n".join(f"  {name:12}{what}" for name, (_, what) in VERBS.items())
    return f"usage: python -m lgg_jax VERB --flag=value …\n\n{verbs}\n\npython -m lgg_jax VERB --help has the flags."


def command() -> None:
    """The console script."""
    use_huge_pages()
    run()


def use_huge_pages() -> None:
    """On Linux, begins this process anew with the memory of large arrays in pages of 2 MB instead of 4 kB.

    A training step on a CPU asks for some hundred MB and gives them back, and to clear small pages for it took a fifth
    of its time. glibc reads the setting only when a process begins (its manual, Memory Allocation Tunables); where
    GLIBC_TUNABLES is set, to whatever, it stays.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ and set(sys.argv[1:2]) & set(NEED_TENSORFLOW):
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def run() -> None:
    """Runs the verb and ends with its exit code."""
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
        what = " ".join(str(error).split())[:300]
        print(f"lgg_jax: error: no space left ({what}); free some and give the same command again", file=sys.stderr)
        sys.exit(2)


def main(argv: list[str]) -> int:
    """Runs `argv[1]` with the flags after it and returns the exit code."""
    if len(argv) > 1 and argv[1] in ("-h", "--help", "help"):
        print(usage())
        return 0
    verb = argv[1] if len(argv) > 1 else None
    if verb not in VERBS:
        wrong = f"{verb!r} is not a verb" if verb else "no verb given"
        raise UserError(wrong, f"use one of {', '.join(VERBS)}, or --help")
    sys.path.append(str(Path(__file__).parents[1]))  # where `configs` is, from whatever folder this is called
    if verb in NEED_TENSORFLOW:
        import_tensorflow()
    module = importlib.import_module(VERBS[verb][0])
    values = parse(module, argv)
    return 0 if values is None else module.main(values)


def parse(module, argv: list[str]) -> flags.FlagValues | None:
    """The verb's flags, or None after printing them for `--help`."""
    values = flags.FlagValues()
    known = set(values)
    module.define_flags(values)
    own = [name for name in values if name not in known]
    if {"-h", "--help"} & set(argv[2:]):
        helps = {name: " ".join(values[name].help.split()) for name in own}
        listing = "\n".join(f"  --{name}: {helps[name]} (default: {values[name].value!r})" for name in own)
        print(f"{module.__doc__.strip()}\n\nflags:\n{listing}")
        return None
    if "config" in own:
        values["config"].parser = ConfigFileParser()
    try:
        rest = values(argv[1:])
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        # ml_collections raises what it meets, as for a field that does not exist or a value of another type.
        raise UserError(explain(error), f"see python -m lgg_jax {argv[1]} --help") from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not a flag", "write flags as --name=value")
    return values


class ConfigFileParser(flags.ArgumentParser):
    """Loads a config file by `config.load`, whose errors name the line: ml_collections' own parser loses it."""

    def parse(self, path: str):
        """Return the config."""
        from lgg_jax.config import load  # imports JAX, which other verbs do not need

        return load(path)


def explain(error: Exception) -> str:
    """One line on why the flags did not parse."""
    line = " ".join(str(error).replace("\\n", " ").replace("\\", "").split()).rstrip(".")
    if missing := re.match(r"flag --(\w+)=None: Flag --\w+ must have a value", line):
        return f"--{missing[1]} is not given"
    unknown = re.match(r"\W*'(\w+)'\W*(?=Did|$)", line)
    if not unknown:
        return line
    hint = line[unknown.end() :].strip("'\"")
    return f"no config field is named {unknown[1]!r}" + (f" ({hint})" if hint else "")


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up notes, and keeps it off the accelerators.

    It is only the input pipeline here: it would take all of a GPU's memory from JAX, and its oneDNN kernels would
    make the pipeline's numbers depend on the processor. Its C++ side writes to file descriptor 2 before any of its
    settings count, so that is turned away while it loads; a Python error is raised as ever.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    command()
