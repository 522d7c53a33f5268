"""Runs one command, and turns what is raised into one line and an exit code.

Tested by tests/quant_core/cli/test_main.py.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from ..errors import QuantizationError, in_words
from .arguments import parse
from .commands import COMMANDS
from .output import Output

DONE, REFUSED, FAULTS, INTERRUPTED, TERMINATED = 0, 1, 3, 130, 143


class Terminated(BaseException):
    """SIGTERM: what is half done is cleared away before the process ends."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` (default: the process's) say; the result is the exit code.

    0: done. 1: refused, with one line on stderr. 2: wrong usage. 3: verify found faults. 130 and
    143: interrupted and terminated, which leave no file behind.
    """
    options = parse(arguments)
    output = Output(as_json=options.json, quiet=options.quiet)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        whole = COMMANDS[options.command](options, output)
        return DONE if whole else FAULTS
    except (QuantizationError, ImportError) as error:
        return output.refuse(str(error), REFUSED)
    except OSError as error:
        return output.refuse(in_words(error), REFUSED)
    except MemoryError:
        return output.refuse("There is not enough memory for the largest tensor.", REFUSED)
    except KeyboardInterrupt:
        return output.refuse("Interrupted; nothing was written.", INTERRUPTED)
    except Terminated:
        return output.refuse("Terminated; nothing was written.", TERMINATED)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_) -> None:
    raise Terminated


def console() -> None:
    """The installed command ``graphquant``."""
    sys.exit(main())


if __name__ == "__main__":
    console()
