#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Bash completes our tool's verbs and options, and nbdkit's own completion
# finds our parameters.

. "$(dirname "$0")/../functions.sh"
framework=/usr/share/bash-completion/bash_completion
[ -f "$framework" ] || skip "bash-completion is not installed"

# complete.bash SCRIPT FUNCTION LINE WORD...: what bash would offer for the last
# word of LINE, which it has split into the words.
cat >complete.bash <<'END'
set +e +u
. /usr/share/bash-completion/bash_completion
. "$1"
shift
function=$1
shift
COMP_LINE=$1
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_POINT=${#COMP_LINE}
COMPREPLY=()
"$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
END
offered() { bash complete.bash "$srcdir/completion/addcow" _addcow "$@"; }

for verb in create info map check commit compare flatten measure rebase resize upgrade downgrade status fill; do
    offered "addcow " addcow "" | has -w -- "$verb" || fail "the verb $verb is not offered"
done
offered "addcow create --" addcow create -- | has -- --force || fail "create --force is not offered"
offered "addcow flatten --" addcow flatten -- | has -- --progress || fail "flatten --progress is not offered"
expect_equal "human json" "$(offered "addcow info --output=" addcow info --output = | sort | xargs)" "values of --output"
expect_equal "human json svg" "$(offered "addcow map --output=" addcow map --output = | sort | xargs)" "values of map --output"
offered "addcow info --" addcow info -- | has -x -- --picture || fail "info --picture is not offered"
expect_equal "off on" "$(offered "addcow flatten --lock=" addcow flatten --lock = | sort | xargs)" "values of --lock"
for verb in info map check flatten resize upgrade downgrade; do
    for option in --image= --backing=; do
        offered "addcow $verb --" addcow "$verb" -- | has -- "$option" || fail "$verb $option is not offered"
    done
done
for verb in create map check commit compare flatten measure rebase resize upgrade downgrade; do
    offered "addcow $verb --" addcow "$verb" -- | has -x -- --wait || fail "$verb --wait is not offered"
done
for verb in create info map check commit flatten rebase resize upgrade downgrade; do
    offered "addcow $verb --" addcow "$verb" -- | has -x -- --identity= || fail "$verb --identity is not offered"
    expect_equal "check ignore" "$(offered "addcow $verb --identity=" addcow "$verb" --identity = | sort | xargs)" "values of --identity"
done
for verb in create upgrade; do
    offered "addcow $verb --" addcow "$verb" -- | has -x -- --cluster-size= || fail "$verb --cluster-size is not offered"
    offered "addcow $verb --cluster-size=" addcow "$verb" --cluster-size = | has -x 2M || fail "$verb --cluster-size=2M is not offered"
done
expect_equal "add-cow bochs cloop dmg parallels qcow qcow2 qed raw vdi vhdx vmdk vpc" "$(offered "addcow create -F " addcow create -F "" | sort | xargs)" "values of -F"
offered "addcow info --" addcow info -- | has -x -- --backing-chain || fail "info --backing-chain is not offered"
expect_equal "1 20" "$(offered "addcow create --revision=" addcow create --revision = | sort -n | xargs)" "values of --revision"
expect_equal "off on" "$(offered "addcow downgrade --subclusters=" addcow downgrade --subclusters = | sort | xargs)" "values of --subclusters"
expect_equal "human json prometheus" "$(offered "addcow status --output=" addcow status --output = | sort | xargs)" "values of status --output"
expect_equal "all pause resume touched" "$(offered "addcow fill ctl " addcow fill ctl "" | sort | xargs)" "actions of fill"
offered "addcow fill --" addcow fill -- | has -x -- --rate= || fail "fill --rate is not offered"
touch image.add-cow
offered "addcow flatten --wait " addcow flatten --wait "" | has -x -- image.add-cow || fail "no file after --wait"
if offered "addcow flatten --wait=" addcow flatten --wait = | has .; then fail "something is offered for seconds"; fi
expect_equal "all leaks" "$(offered "addcow check -r " addcow check -r "" | sort | xargs)" "values of -r"

nbdkit_completion=/usr/share/bash-completion/completions/nbdkit
[ -f "$nbdkit_completion" ] || skip "the tool's holds; nbdkit's completion is not installed"
mkdir bin
printf '#!/bin/sh\nexec "%s" nbdkit "$@"\n' "$ADDCOW_RUN" >bin/wrapper
chmod +x bin/wrapper
# nbdkit's completion calls "nbdkit PLUGIN --help".
printf '#!/bin/sh\nPATH="%s" exec "%s" nbdkit "$@"\n' "$PATH" "$ADDCOW_RUN" >bin/nbdkit
chmod +x bin/nbdkit
PATH="$scratch/bin:$PATH" bash complete.bash "$nbdkit_completion" _nbdkit "nbdkit addcow " nbdkit addcow "" >words
for parameter in file= image= backing= layer= readonly= lock= confine= identity= reflink= subclusters= sync-interval= timeout= allow= copy-on-read= fetch-size= control= fill= fill-rate= fill-delay= fill-exit=; do
    grep -q -- "$parameter" words ||
        fail "nbdkit's completion does not offer $parameter"
done
