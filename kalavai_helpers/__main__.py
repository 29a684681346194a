"""Command line of the book: `python -m kalavai_helpers <command>`; heavy imports wait inside."""

import argparse
import ast
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kalavai_helpers import __version__, artifacts

if TYPE_CHECKING:
    from kalavai_helpers.tiers import Tier

# What people can cause and mend: one line is enough. Anything else is a fault of the program.
EXPECTED = (ValueError, RuntimeError, OSError, LookupError)
LEFT = 3
"""Exit code of a recording that was given less time than it takes."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="python -m kalavai_helpers", description="Execute, check and build the KALAVAI book."
    )
    top.add_argument("--version", action="version", version=__version__)
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    run = commands.add_parser("execute", help="run chapters that changed, with papermill")
    run.add_argument("--tier", default="ci", help="size of the run (default: ci)")
    run.add_argument(
        "--chapter", action="extend", nargs="+", metavar="NAME", help="only these (default: all)"
    )
    run.add_argument("--seed", type=_seed, default=42, help="random seed (default: 42)")
    run.add_argument(
        "--corpora",
        metavar="SOURCE",
        help="builtin, folder:PATH, folder-open:PATH or hub (default: the tier's own)",
    )
    run.add_argument("--force", action="store_true", help="run even what did not change")
    run.add_argument("--cell-timeout", type=_seconds, metavar="S", help="seconds one cell may take")
    run.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        type=_assignment,
        metavar="NAME=VALUE",
        help="another parameter that the chapters declare",
    )
    run.set_defaults(act=_execute)

    keep = commands.add_parser("record", help="run a chapter and keep its numbers in data/recorded")
    keep.add_argument("--tier", default="laptop")
    keep.add_argument(
        "--chapter",
        metavar="NAME",
        help="default: 01_protocol, and at a pretrained tier the ledger of the twenty",
    )
    keep.add_argument("--seed", type=_seed, default=42, help="of a chapter (default: 42)")
    keep.add_argument("--corpora", metavar="SOURCE")
    keep.add_argument(
        "--minutes",
        type=_minutes,
        metavar="N",
        help="stop the twenty after so long, and go on when called again (default: to the end)",
    )
    keep.add_argument("--fused", action="store_true", help="keep the fused model as well")
    keep.set_defaults(act=_record)

    expect = commands.add_parser("expect", help="measure the spread over seeds, for CI to compare")
    expect.add_argument("--tier", default="ci")
    expect.add_argument("--chapter", nargs="+", metavar="NAME", help="only these (default: all)")
    expect.set_defaults(act=_expect)

    regime = commands.add_parser("regime", help="try recipes of a tier on validation text")
    regime.add_argument("--tier", default="ci")
    regime.add_argument("--seed", type=_seed, default=42)
    regime.add_argument("--corpora", metavar="SOURCE")
    regime.set_defaults(act=_regime)

    check = commands.add_parser("check", help="check this machine and installation")
    check.add_argument("--tier", default="ci")
    check.add_argument("--corpora", metavar="SOURCE")
    check.set_defaults(act=_check)

    plan = commands.add_parser("plan", help="say beforehand what a run of a tier will take")
    plan.add_argument("--tier", default="ci")
    plan.add_argument("--corpora", metavar="SOURCE")
    plan.add_argument("--domain", nargs="+", metavar="NAME", help="contributors of a cooperative")
    plan.add_argument("--seed", type=_seed, default=42)
    plan.add_argument("--steps", type=_steps, help="of a specialist (default: the tier's own)")
    plan.set_defaults(act=_plan)

    build = commands.add_parser("build", help="build the site from executed chapters")
    build.add_argument("--tier", default="ci")
    build.set_defaults(act=_build)

    pairing = commands.add_parser("notebooks", help="write the .ipynb beside each chapter")
    pairing.add_argument("--check", action="store_true", help="only report what is out of date")
    pairing.set_defaults(act=_notebooks)

    software = commands.add_parser("environment", help="write environment.yml from pyproject.toml")
    software.add_argument("--check", action="store_true", help="only report differences")
    software.add_argument(
        "--freeze", action="store_true", help="also write constraints.txt from what is installed"
    )
    software.set_defaults(act=_environment)

    bench = commands.add_parser("bench", help="time and weigh the fused model, print a table")
    bench.add_argument("--tier", default="ci", help="for routers and training (default: ci)")
    bench.add_argument("--quick", action="store_true", help="less than a minute, to see it work")
    bench.add_argument("--corpora", default="builtin", metavar="SOURCE", help="text to read")
    bench.set_defaults(act=_bench)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 done, 1 failed, 2 usage, 3 some work is left, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's has not
            # A terminal without the letter "→" shows another sign, and the run goes on.
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        return options.act(options)
    except KeyboardInterrupt:
        print("\nInterrupted; what was finished is kept.", file=sys.stderr)
        return 130
    except EXPECTED as error:
        if options.debug:
            raise
        # str(KeyError) quotes its message.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"error: {message}", file=sys.stderr)
        return 1


def _execute(options: argparse.Namespace) -> int:
    from kalavai_helpers import execute

    results = execute.execute(
        options.chapter,
        options.tier,
        options.seed,
        options.corpora,
        options.force,
        options.cell_timeout,
        parameters=dict(options.parameter),
    )
    print("\n" + execute.table(results), flush=True)
    failed = [result for result in results if result.status == "failed"]
    for result in failed:
        print(f"error: {result.error}", file=sys.stderr)
    return 1 if failed else 0


def _record(options: argparse.Namespace) -> int:
    from kalavai_helpers import execute, recorded, tiers

    tier = tiers.get(options.tier)
    corpora = options.corpora or tier.corpora
    if options.chapter is None and tier.name == tiers.PRETRAINED:
        return _record_twenty(tier, corpora, options.minutes)
    chapter = options.chapter or "01_protocol"
    (result,) = execute.execute([chapter], tier.name, options.seed, corpora)
    if result.error:
        print(f"error: {result.error}", file=sys.stderr)
        return 1
    kept = [recorded.keep(chapter, tier, result.seconds)]
    if options.fused:
        kept.append(recorded.keep_fused(tier, options.seed, corpora))
    for path in kept:
        print(f"{path.relative_to(artifacts.project_root())} written")
    return 0


def _record_twenty(tier: "Tier", corpora: str, minutes: float | None) -> int:
    from kalavai_helpers import kept_ledger, twenty

    left = twenty.record(tier, corpora, minutes)
    if left:
        print(f"left: {', '.join(step.name for step in left)}")
        print("Run the same command again to go on.")
        return LEFT
    print(f"{kept_ledger.folder(tier.name)} is complete")
    return 0


def _expect(options: argparse.Namespace) -> int:
    from kalavai_helpers import expected

    path = expected.measure(options.tier, options.chapter)
    print(f"{path.relative_to(artifacts.project_root())} written")
    return 0


def _regime(options: argparse.Namespace) -> int:
    from kalavai_helpers import regime, tiers

    tier = tiers.get(options.tier)
    path = regime.record(tier, options.corpora or tier.corpora, options.seed)
    print(path.read_text("utf-8"))
    print(f"{path.relative_to(artifacts.project_root())} written")
    return 0


def _check(options: argparse.Namespace) -> int:
    from kalavai_helpers import check

    return check.main(options.tier, options.corpora)


def _plan(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from kalavai_helpers import budget, corpora, specialists, teams, tiers, twenty

    tier = tiers.get(options.tier)
    if options.steps:
        tier = replace(tier, specialist_steps=options.steps)
    source = options.corpora or tier.corpora
    recorded = tier.name == tiers.PRETRAINED and set(teams.TWENTY) <= set(corpora.domains(source))
    if recorded and not options.domain:
        found = budget.of_recording(twenty.Study.of(tier, source))
    else:
        main = corpora.MAIN_DOMAINS
        domains = tuple(options.domain) if options.domain else corpora.choose(source, main)
        found = budget.of(specialists.Cooperative(tier, source, domains, options.seed))
    print(*found.lines(), sep="\n")
    return 0


def _build(options: argparse.Namespace) -> int:
    from kalavai_helpers import book

    print(f"Open {book.build(tier=options.tier)}")
    return 0


def _notebooks(options: argparse.Namespace) -> int:
    from kalavai_helpers import notebooks

    changed = notebooks.drift() if options.check else notebooks.pair()
    for path in changed:
        state = "out of date: run make notebooks" if options.check else "written"
        print(f"{path.relative_to(artifacts.project_root())} {state}")
    return 1 if options.check and changed else 0


def _environment(options: argparse.Namespace) -> int:
    from kalavai_helpers import environment

    if options.check:
        problems = environment.drift()
        print(
            "\n".join(problems) or "environment.yml and constraints.txt agree with pyproject.toml"
        )
        return 1 if problems else 0
    for path in environment.write(refreeze=options.freeze):
        print(f"{path.name} written")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from kalavai_helpers import bench

    path = bench.main(options.tier, options.quick, options.corpora)
    print(f"{path.relative_to(artifacts.project_root())} written")
    return 0


def _minutes(text: str) -> float:
    return _positive(text, "minutes")


def _seconds(text: str) -> float:
    return _positive(text, "seconds")


def _positive(text: str, unit: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of {unit}")
    return value


def _steps(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} steps train nothing: at least 1")
    return int(text)


def _seed(text: str) -> int:
    # The range that numpy, torch and a record all take.
    if not 0 <= int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is no seed: 0 to {2**32 - 1}")
    return int(text)


def _assignment(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    sys.exit(main())
