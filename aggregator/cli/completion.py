"""`aggregator completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from aggregator.cli.options import Globals, command
from aggregator.errors import UsageError

_NAME = "aggregator"
_VARIABLE = "_AGGREGATOR_COMPLETE"

_EPILOG = """\b
Where it goes, for every user of this machine:
  bash  aggregator completion bash > /etc/bash_completion.d/aggregator
  zsh   aggregator completion zsh > /usr/local/share/zsh/site-functions/_aggregator
  fish  aggregator completion fish > /etc/fish/completions/aggregator.fish
\b
For one shell, until it ends:
  eval "$(aggregator completion bash)"
"""


@command("completion", epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(_said: Globals, shell: str) -> None:
    """Print what completes commands and options in a shell: bash 4.4 or newer, zsh or fish."""
    found = get_completion_class(shell)
    if found is None:
        raise UsageError("the shells are: bash, zsh, fish")
    root = click.get_current_context().find_root().command
    print(found(root, {}, _NAME, _VARIABLE).source())
