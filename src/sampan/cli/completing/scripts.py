"""The shells' side: a script each, which asks the hidden command `__complete` at every completion."""

from __future__ import annotations

_BASH = r"""# Completion of @NAME@ for bash. Load it with:  source <(@NAME@ completion bash)

# Bash cuts words at : and = too. This joins them again: __@NAME@_words, the last one up to the cursor.
__@NAME@_split() {
    local rest=${COMP_LINE:0:COMP_POINT} index word
    __@NAME@_words=()
    for ((index = 0; index <= COMP_CWORD; index++)); do
        local fresh=
        if [[ $index -eq 0 || $rest == [[:space:]]* ]]; then
            fresh=yes
            rest=${rest#"${rest%%[![:space:]]*}"}
        fi
        if ((index == COMP_CWORD)); then word=$rest; else word=${COMP_WORDS[index]}; fi
        if [[ $fresh ]]; then
            __@NAME@_words+=("$word")
        else
            __@NAME@_words[${#__@NAME@_words[@]} - 1]+=$word
        fi
        rest=${rest#"$word"}
    done
}

__@NAME@_complete() {
    local -a __@NAME@_words lines values
    local line bits=0 cur cut
    __@NAME@_split
    cur=${__@NAME@_words[${#__@NAME@_words[@]} - 1]}
    mapfile -t lines < <("${__@NAME@_words[0]}" @COMMAND@ "${__@NAME@_words[@]:1}" 2>/dev/null)
    for line in "${lines[@]}"; do
        if [[ $line == :+([0-9]) ]]; then bits=${line#:}; else values+=("$line"); fi
    done
    COMPREPLY=()
    if ((bits & 1)); then return; fi
    if ((bits & 2)); then compopt -o nospace 2>/dev/null; fi
    if ((${#values[@]} == 0 && !(bits & 4))); then
        compopt -o default 2>/dev/null
        return
    fi
    if ((${#values[@]} == 1)); then
        COMPREPLY=("${values[0]%%$'\t'*}")
    elif [[ ${COMP_TYPE:-9} -eq 63 || ${COMP_TYPE:-9} -eq 64 ]]; then
        # A list is shown: with what there is to say of each, aligned.
        local width=0 value
        for line in "${values[@]}"; do
            value=${line%%$'\t'*}
            ((${#value} > width)) && width=${#value}
        done
        for line in "${values[@]}"; do
            value=${line%%$'\t'*}
            if [[ $line == *$'\t'?* ]]; then
                printf -v value "%-${width}s  (%s)" "$value" "${line#*$'\t'}"
                COMPREPLY+=("${value:0:${COLUMNS:-80}}")
            else
                COMPREPLY+=("$value")
            fi
        done
    else
        for line in "${values[@]}"; do COMPREPLY+=("${line%%$'\t'*}"); done
    fi
    # What bash takes for words of their own is there already.
    if [[ $cur != --*=* ]]; then
        cut=${cur%"${cur##*[:=]}"}
        if [[ $cut ]]; then COMPREPLY=("${COMPREPLY[@]#"$cut"}"); fi
    else
        cut=${cur#*=}
        cut=${cut%"${cut##*[:=]}"}
        if [[ $cut ]]; then COMPREPLY=("${COMPREPLY[@]#"$cut"}"); fi
    fi
}

shopt -s extglob
complete -F __@NAME@_complete @NAME@
"""

_ZSH = r"""#compdef @NAME@
# Completion of @NAME@ for zsh. Load it with:  source <(@NAME@ completion zsh)
# or write it to a file named _@NAME@ in a folder of $fpath.

_@NAME@() {
    local -a lines values
    local line bits=0 value about prefix
    lines=("${(@f)$(${words[1]} @COMMAND@ "${(@)words[2,CURRENT-1]}" "${words[CURRENT]}" 2>/dev/null)}")
    for line in "${lines[@]}"; do
        if [[ $line =~ '^:[0-9]+$' ]]; then
            bits=${line#:}
        elif [[ -n $line ]]; then
            value=${line%%$'\t'*}
            about=
            [[ $line == *$'\t'* ]] && about=${line#*$'\t'}
            value=${value//:/\\:}
            values+=("${value}${about:+:$about}")
        fi
    done
    ((bits & 1)) && return 1
    if ((${#values} == 0)); then
        ((bits & 4)) || _files
        return
    fi
    if [[ ${words[CURRENT]} == --*=* ]]; then
        compset -P '*='
    fi
    if ((bits & 2)); then
        _describe -V 'value' values -S ''
    else
        _describe -V 'value' values
    fi
}

if [[ $funcstack[1] == _@NAME@ ]]; then
    _@NAME@ "$@"
else
    compdef _@NAME@ @NAME@
fi
"""

_FISH = r"""# Completion of @NAME@ for fish. Load it with:  @NAME@ completion fish | source
# or write it to ~/.config/fish/completions/@NAME@.fish

function __@NAME@_complete
    set -l before (commandline -opc)
    set -l last (commandline -ct)
    set -l bits 0
    set -l values
    for line in ($before[1] @COMMAND@ $before[2..-1] "$last" 2>/dev/null)
        if string match -qr '^:[0-9]+$' -- $line
            set bits (string sub -s 2 -- $line)
        else
            set -a values $line
        end
    end
    if test (math "$bits % 2") -eq 1
        return
    end
    if test (count $values) -eq 0
        if test (math "floor($bits / 4) % 2") -eq 0
            __fish_complete_path "$last"
        end
        return
    end
    set -l prefix ''
    if string match -qr '^--[^=]+=' -- $last
        set prefix (string replace -r '=.*' '=' -- $last)
    end
    for value in $values
        echo $prefix$value
    end
end

complete -c @NAME@ -e
complete -c @NAME@ -f -a '(__@NAME@_complete)'
"""

SHELLS = {"bash": _BASH, "fish": _FISH, "zsh": _ZSH}


def script(shell: str, name: str, descriptions: bool) -> str:
    """The script for a shell.

    Args:
        name: what the program is called by.
        descriptions: show a word about each value.
    """
    command = "__complete" if descriptions else "__completeNoDesc"
    return SHELLS[shell].replace("@NAME@", name).replace("@COMMAND@", command)
