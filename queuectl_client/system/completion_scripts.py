"""What a shell runs to complete a `queuectl` line, and what it is answered.

The scripts hand over the line up to the cursor in $QUEUECTL_LINE, and read one offer a line: its kind, the text, and a
description, with tabs between them. The kinds `dir`, `file` and `program` leave it to the shell, which knows better
what there is; `program` is a command line of its own, the words after `--`.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Literal

import click
from click.shell_completion import CompletionItem, ShellComplete, split_arg_string

Shell = Literal["bash", "zsh", "fish"]

VARIABLE = "_QUEUECTL_COMPLETE"
"""Says which shell asks: `bash_line`, `zsh_line`, `fish_line`."""
LINE = "QUEUECTL_LINE"

_BASH = r"""# bash completion for queuectl
_queuectl() {
    local type text rest at answer program=${1/#\~\//$HOME/}
    COMPREPLY=()
    answer=$(_QUEUECTL_COMPLETE=bash_line QUEUECTL_LINE=${COMP_LINE:0:COMP_POINT} command "$program" 2>/dev/null)
    while IFS=$'\t' read -r type text rest; do
        case $type in
            plain) COMPREPLY+=("$text") ;;
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            program)
                for ((at = 1; at < COMP_CWORD; at++)); do
                    [[ ${COMP_WORDS[at]} == -- ]] && break
                done
                if declare -F _comp_command_offset >/dev/null; then
                    _comp_command_offset $((at + 1))
                elif declare -F _command_offset >/dev/null; then
                    _command_offset $((at + 1))
                elif ((COMP_CWORD == at + 1)); then
                    compopt -o filenames
                    mapfile -t COMPREPLY <<<"$(compgen -A command -A file -- "${COMP_WORDS[COMP_CWORD]}" | sort -u)"
                    [[ ${COMPREPLY[*]} ]] || COMPREPLY=()
                else
                    compopt -o default
                fi
                ;;
        esac
    done <<<"$answer"
    # Where bash does not sort, it does not drop what is offered twice either.
    local -A seen=()
    local -a once=()
    for text in "${COMPREPLY[@]}"; do
        [[ ${seen[x$text]} ]] || once+=("$text")
        seen[x$text]=1
    done
    COMPREPLY=("${once[@]}")
}
complete -o nosort -F _queuectl queuectl
"""

_ZSH = r"""#compdef queuectl
# zsh completion for queuectl
_queuectl() {
    local type text rest program=${(Q)words[1]}
    local -a offers
    local -i at files=0 dirs=0
    [[ $program == '~'* ]] && program=${~program}
    local answer="$(_QUEUECTL_COMPLETE=zsh_line QUEUECTL_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" \
        command $program 2>/dev/null)"
    while IFS=$'\t' read -r type text rest; do
        case $type in
            plain) offers+=("${text//:/\\:}${rest:+:$rest}") ;;
            dir) dirs=1 ;;
            file) files=1 ;;
            program)
                at=${words[(i)--]}
                words=("${(@)words[at+1,-1]}")
                ((CURRENT -= at))
                _normal
                return
                ;;
        esac
    done <<<"$answer"
    [[ $PREFIX == --*=* ]] && compset -P 1 '*='
    ((files)) && _files
    ((dirs)) && _files -/
    (($#offers)) && _describe -V queuectl offers
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _queuectl "$@"
else
    (($+functions[compdef])) || { autoload -Uz compinit && compinit -i }
    compdef _queuectl queuectl
fi
"""

_FISH = r"""# fish completion for queuectl
function __queuectl_complete
    set -l line (commandline -pc)
    set -l token (commandline -ct)
    set -l option (string match -r -- '^--[^=]+=' $token)
    set -l value (string replace -r -- '^--[^=]+=' '' "$token")
    for offer in (env _QUEUECTL_COMPLETE=fish_line QUEUECTL_LINE="$line" queuectl 2>/dev/null)
        set -l part (string split -m 2 \t -- $offer)
        switch $part[1]
            case plain
                printf '%s%s\t%s\n' "$option" $part[2] "$part[3]"
            case dir
                printf "$option%s\n" (__fish_complete_directories "$value")
            case file
                printf "$option%s\n" (__fish_complete_path "$value")
            case program
                complete -C (string replace -r -- '^.*?\s--\s+' '' $line)
        end
    end
end
complete --command queuectl --no-files --keep-order --arguments '(__queuectl_complete)'
"""

SCRIPTS: dict[Shell, str] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def answer(root: click.Command) -> int:
    """Write what can stand at the cursor; the exit status."""
    for item in _offers(root, os.environ.get(LINE, "")):
        text, meaning = ("" if part is None else " ".join(part.split()) for part in (item.value, item.help))
        sys.stdout.write(f"{item.type}\t{text}\t{meaning}\n")
    return 0


def _offers(root: click.Command, line: str) -> list[CompletionItem]:
    words = split_arg_string(line)
    while words and re.match(r"\w+=", words[0]):
        words.pop(0)  # variables that are set for the command
    incomplete = "" if line[-1:].isspace() or len(words) < 2 else words.pop()
    arguments = words[1:]
    if "--" in arguments and {"enqueue", "run"} & {*arguments[: arguments.index("--")]}:
        return [CompletionItem("", type="program")]
    return ShellComplete(root, {}, "queuectl", VARIABLE).get_completions(arguments, incomplete)
