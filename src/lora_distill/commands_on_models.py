"""The commands that take a finished model: to label texts, to export, to push, to serve."""

import argparse
import sys
import warnings
from pathlib import Path

from lora_distill.config import make_config
from lora_distill.data.formats import STANDARD, formats_of
from lora_distill.data.types import PARTS
from lora_distill.data.wording import counted
from lora_distill.errors import UserError
from lora_distill.faults import make_settings
from lora_distill.flags import given
from lora_distill.printing import console, print_lines, say_error
from lora_distill.program import INTERRUPTED, OK, SOME_FAILED, install
from lora_distill.run_folder import RunFolder
from lora_distill.serving.settings import ServeSettings


def predict(arguments: argparse.Namespace) -> int:
    """The texts of a file, labelled."""
    from lora_distill.data.windows import Source
    from lora_distill.deployment.classifier import Classifier
    from lora_distill.deployment.predict import Labelling, label_file, label_stream

    if arguments.threshold is not None and not 0 < arguments.threshold <= 1:
        raise UserError(f"--threshold {arguments.threshold}: is no confidence. Give one above 0, up to 1.")
    given_format, output_format = formats_of(arguments.input, arguments.format, arguments.output)
    try:
        with warnings.catch_warnings(action="ignore"):  # the libraries' warnings to programmers
            classifier = Classifier.load(arguments.model)
        labelling = Labelling(classifier, arguments.threshold, arguments.prefix)
        first, second = _text_columns(arguments, pairs=classifier.pairs)
        path = None if arguments.input == STANDARD else Path(arguments.input)
        source = Source(path, given_format, first, text_pair_column=second)
        if arguments.output == STANDARD:
            label_stream(labelling, source, output_format)
            return OK
        target = Path(arguments.output)
        counts = label_file(labelling, source, target, output_format, overwrite=arguments.overwrite)
    except KeyboardInterrupt:
        say_error(f"stopped.{_kept(arguments)}")
        return INTERRUPTED
    print_lines(f"{counted(counts.labelled, 'row')} labelled: {target}")
    if arguments.threshold is not None:
        print_lines(
            f"{counted(counts.review, 'row')} for a person to read, of less confidence than {arguments.threshold}"
        )
    return OK


def _text_columns(arguments: argparse.Namespace, *, pairs: bool) -> tuple[str, str | None]:
    """Names of the columns that a model reads: one, or two."""
    config = make_config(*given(arguments))
    if config.text_pair_column and not pairs:
        raise UserError(
            f"--text_pair_column {config.text_pair_column}: {arguments.model} reads single texts. Leave it out."
        )
    return config.text_column, (config.text_pair_column or PARTS[1]) if pairs else None


def _kept(arguments: argparse.Namespace) -> str:
    """What a stopped `predict` leaves, as the end of a sentence on that."""
    from lora_distill.data.windows import WINDOW_ROWS
    from lora_distill.deployment.unfinished import Unfinished

    if arguments.output == STANDARD:
        return ""
    if Unfinished(Path(arguments.output)).begun:
        command = f"the same command{' without --overwrite' if arguments.overwrite else ''}"
        return f" What was labelled is kept; {command} goes on."
    return f" Nothing is kept yet: that is done for {WINDOW_ROWS:,} rows at a time."


def export(arguments: argparse.Namespace) -> int:
    """A run's model as folders that open elsewhere."""
    from lora_distill.deployment.export import FORMS, UnfaithfulError, export_role, places
    from lora_distill.reporting.exported import exported_table

    run = RunFolder(arguments.run)
    folders = places(run, arguments.role, FORMS if arguments.to == "all" else (arguments.to,), arguments.output)
    try:
        with warnings.catch_warnings(action="ignore"):
            written = export_role(run, arguments.role, folders, force=arguments.force)
    except UnfaithfulError as error:
        say_error(str(error))
        return SOME_FAILED
    console().print(exported_table(written))
    print_lines("", *(f"Written to {folder}" for folder in folders.values()))
    for form, each in written.items():
        for fault in each["faults"]:
            say_error(f"{form}: kept by force: {fault}.")
    return OK


def push(arguments: argparse.Namespace) -> int:
    """A run's model to a hub, or what would be pushed into a folder."""
    from lora_distill.deployment.shared import push, write_shared

    if arguments.output and not arguments.dry_run:
        raise UserError(f"--output {arguments.output}: is where --dry_run writes. Give both, or neither to push.")
    run, repository = RunFolder(arguments.run), arguments.repository
    model = {"role": arguments.role, "form": arguments.form}
    try:
        with warnings.catch_warnings(action="ignore"):
            if arguments.dry_run:
                folder = arguments.output or run.path / "to-push" / f"{arguments.role}-{arguments.form}"
                write_shared(run, repository, folder, **model)
                print_lines(f"Nothing was pushed. What would be is in {folder}")
                return OK
            shared = push(run, repository, private=arguments.private, **model)
    except KeyboardInterrupt:
        say_error(f"stopped. {repository} shows whether it was pushed before that.")
        return INTERRUPTED
    print_lines(f"Pushed to {shared.pushed.url}", "", *shared.opening)
    return OK


def serve(arguments: argparse.Namespace) -> int:
    """A model behind a URL, until it is stopped."""
    settings = make_settings(ServeSettings, *given(arguments, ServeSettings))
    try:
        from lora_distill.serving.server import serve
    except ModuleNotFoundError as error:
        raise UserError(f"the package {error.name} is not installed. Install it: {install('serve')}") from None

    def announce(url: str) -> None:
        print_lines(f"Serving {arguments.model} at {url}   (Ctrl-C stops it)")
        sys.stdout.flush()  # whoever reads a pipe waits for it

    try:
        serve(arguments.model, settings, announce)
    except KeyboardInterrupt:
        say_error("stopped before it served.")
        return INTERRUPTED
    return OK
