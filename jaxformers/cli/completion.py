"""Shell completion: scripts for bash, zsh and fish that complete verbs, options and files.

The scripts are written from the table of verbs and start no Python while one types.
"""

from __future__ import annotations

import shlex

from jaxformers.cli.options import Verb
from jaxformers.errors import ConfigError, did_you_mean, printable

BASH = """_jaxformers() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [[ "$COMP_CWORD" -eq 1 ]]; then
        words="{verbs} help --help --version"
    elif [[ "${{COMP_WORDS[1]}}" == help ]]; then
        words="{verbs}"
    elif [[ "${{COMP_WORDS[1]}}" == completion && "$word" != -* ]]; then
        words="{shells}"
    elif [[ "$word" == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _jaxformers jaxformers
"""
SHELLS = ("bash", "zsh", "fish")
ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"


def script(shell: str, verbs: dict[str, Verb]) -> str:
    """The completion script of a shell.

    Args:
        shell: "bash", "zsh" or "fish".
        verbs: the table of verbs.

    Raises:
        ConfigError: another shell.
    """
    writers = dict(zip(SHELLS, (bash, zsh, fish), strict=True))
    if shell not in writers:
        hint = did_you_mean(shell, writers) or f"; there are {', '.join(SHELLS)}"
        raise ConfigError(f"no completion for the shell {printable(shell)!r}{hint}")
    return writers[shell](verbs)


def bash(verbs: dict[str, Verb]) -> str:
    """The script for bash: a case for the options of every verb."""
    cases = []
    for name, verb in verbs.items():
        options = " ".join([*(option for option, _ in verb.options), "--help"])
        cases.append(f'            {name}) words="{options}" ;;')
    return BASH.format(verbs=" ".join(verbs), shells=" ".join(SHELLS), cases="\n".join(cases))


def zsh(verbs: dict[str, Verb]) -> str:
    """The script for zsh: that of bash, which zsh's `bashcompinit` runs."""
    return ZSH + bash(verbs)


def fish(verbs: dict[str, Verb]) -> str:
    """The script for fish: a line for every verb and every option, with its description."""
    first_word = "complete -c jaxformers -n __fish_use_subcommand"
    lines = [
        f"{first_word} -f -a help -d 'the help of a verb'",
        f"{first_word} -l help",
        f"{first_word} -l version",
        f"complete -c jaxformers -n '__fish_seen_subcommand_from help' -f -a '{' '.join(verbs)}'",
        "complete -c jaxformers -n '__fish_seen_subcommand_from completion' -f "
        f"-a '{' '.join(SHELLS)}'",
    ]
    for name, verb in verbs.items():
        summary = shlex.quote(verb.summary)
        lines.append(f"{first_word} -f -a {name} -d {summary}")
        for option, spec in verb.options:
            description = f" -d {shlex.quote(spec['help'])}" if "help" in spec else ""
            lines.append(
                f"complete -c jaxformers -n '__fish_seen_subcommand_from {name}' "
                f"-l {option.removeprefix('--')}{description}"
            )
    return "\n".join([*lines, ""])
