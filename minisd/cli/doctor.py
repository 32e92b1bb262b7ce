"""`python -m minisd doctor`: looks for what goes wrong the first time, and says what to do.

One line for each thing: "ok", "note" for what you may want to change, "PROBLEM" for what does not
work until you do. Exit status 0 without problems, 1 with some. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from minisd.cli import assets, installation, machine
from minisd.cli.arguments import Parser
from minisd.cli.installation import Finding, Findings, problem
from minisd.cli.terminal import say

CHECKS = (installation.python, installation.packages, installation.arrays, installation.kernel,
          installation.importable, installation.folders, assets.files, assets.toyworld,
          assets.real_weights, machine.disk, machine.memory, machine.formats, machine.gpu)


def run(argv: list[str]) -> int:
    """Say what every check finds; returns the exit status."""
    Parser("minisd doctor", "Check the installation, and say what to do about each problem."
           ).read(argv)
    problems = 0
    for check in CHECKS:
        for finding in findings(check):
            say(str(finding))
            problems += finding.broken
    say(f"{problems} problem{'s' * (problems > 1)} found" if problems else "no problems found")
    return 1 if problems else 0


def findings(check: Callable[[], Findings]) -> Findings:
    """What a check finds; that it could not be made, where it fails itself."""
    name = check.__name__.replace("_", " ")
    try:
        yield from check()
    except ImportError as error:            # packages() has said so already
        yield Finding(name, f"not looked at ({error})", "first install what is missing")
    except Exception as error:              # a broken installation can raise anything
        yield problem(name, f"could not be looked at ({type(error).__name__}: {error})",
                      "see to the other problems first")
