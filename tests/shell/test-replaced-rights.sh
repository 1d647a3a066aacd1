#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A new add-cow file in an old one's place keeps the access control list and the extended
# attributes; files that are made anew give nobody more than the list of their base does; and
# where no new file can take the old one's place, that is found before anything is touched.

. "$(dirname "$0")/../functions.sh"
requires nbdsh
umask 022
chmod 755 .
stranger=65534

random_file one.img 1M
cp one.img two.img
printf changed | dd of=two.img bs=1 seek=300000 conv=notrunc status=none
# over NAME: NAME.add-cow over one.img, with 4 KiB of its own.
over() {
    rm -f "$1.raw" "$1.add-cow"
    addcow create -q -b one.img -F raw -i "$1.raw" "$1.add-cow"
    nbdkit -U - addcow "$1.add-cow" --run 'nbdsh -u "$uri" -c "h.pwrite(b\"5\" * 4096, 200000 // 4096 * 4096)"'
}
everything() { find . -name "*.add-cow" -o -name "*.raw" -o -name "*.img" | sort | xargs sha256sum; }
# untouched PATTERN COMMAND...: fails with a line that has the pattern, and changes no file.
untouched() {
    local pattern="$1" before
    shift
    before="$(everything)"
    expect_fails 1 "$@"
    expect_equal "$before" "$(everything)" "what is there after: $*"
    expect_equal 1 "$(wc -l <stderr)" "lines: $(cat stderr)"
    grep -q -- "$pattern" stderr || fail "no '$pattern' in: $(cat stderr)"
}
# What writes X.add-cow anew, each a function of the file's name.
replace_rebase() { addcow rebase -q -b two.img -F raw "$1"; }
replace_rebase_u() { addcow rebase -q -u -b one.img -F raw "$1"; }
replace_upgrade() { addcow upgrade -q "$1"; }
replace_downgrade() { addcow downgrade -q --subclusters=off "$1"; }
replace_commit() { addcow commit -q "$1"; }
replace_commit_d() { addcow commit -q -d "$1"; }
replacers="rebase rebase_u upgrade downgrade commit commit_d"
prepare() {
    over x
    if [ "$1" = downgrade ]; then addcow upgrade -q x.add-cow; fi
    cp one.img one.copy
}

# Access control lists.
touch probe
if ! command -v setfacl >/dev/null || ! command -v getfacl >/dev/null; then
    echo "not tried: access control lists (setfacl and getfacl are not installed)"
elif ! setfacl -m "u:$stranger:r" probe 2>/dev/null; then
    echo "not tried: access control lists (the file system of $PWD has none)"
else
    acl() { getfacl -cn "$1" 2>/dev/null; }
    for verb in $replacers; do
        prepare "$verb"
        chmod 600 x.add-cow
        setfacl -m "u:$stranger:rw" x.add-cow
        before="$(acl x.add-cow)"
        inode="$(stat -c %i x.add-cow)"
        exec 7<x.add-cow # so that its inode is not used again
        "replace_$verb" x.add-cow
        exec 7<&-
        [ "$inode" != "$(stat -c %i x.add-cow)" ] || fail "$verb does not write x.add-cow anew"
        expect_equal "$before" "$(acl x.add-cow)" "the list of x.add-cow after $verb"
    done
    # One without a list does not get its directory's.
    mkdir lists
    prepare upgrade
    mv x.add-cow x.raw lists
    cp one.img lists
    chmod 640 lists/x.add-cow
    setfacl -d -m "u:$stranger:rw" lists
    before="$(acl lists/x.add-cow)"
    addcow upgrade -q lists/x.add-cow
    expect_equal "$before" "$(acl lists/x.add-cow)" "the list after an upgrade in a directory with one"

    # made MODE LIST EXPECTED: the mode of what is made over a base with that list.
    made() {
        rm -rf new
        mkdir new
        cp one.img new/base.img
        chmod "$1" new/base.img
        setfacl -m "$2" new/base.img
        (cd new && addcow create -q -b base.img -F raw -i i.raw i.add-cow && addcow flatten -q i.add-cow)
        for file in new/i.raw new/i.add-cow; do
            expect_equal "$3" "$(stat -c %a $file)" "the mode of $file over a base of $1 and $2"
            expect_equal "" "$(acl $file | grep ':[0-9]')" "names in the list of $file"
        done
    }
    made 600 "u:$stranger:r" 600
    made 640 "u:$stranger:r" 640
    made 644 "u:$stranger:r" 644
    made 644 "g:$stranger:-" 640
    made 644 "u:$stranger:-" 600
    made 644 "u:$stranger:rw,m::-" 600
    # In a directory whose list gives rights to what is made in it.
    rm -rf new
    mkdir new
    cp one.img new/base.img
    chmod 640 new/base.img
    setfacl -d -m "u:$stranger:rw" new
    (cd new && addcow create -q -b base.img -F raw -i i.raw i.add-cow)
    expect_equal "#effective:---" "$(getfacl -cn new/i.raw | grep "^user:$stranger" | cut -f2 | sed 's/.*#/#/')" \
        "what the stranger may do to new/i.raw"

    if command -v qemu-img >/dev/null && command -v qemu-nbd >/dev/null && ! built_with_sanitizer; then
        over x
        chmod 600 x.raw
        setfacl -m "u:$stranger:r" x.raw
        addcow export -q x.add-cow out.qcow2
        expect_equal 600 "$(stat -c %a out.qcow2)" "the mode of what is exported"
        chmod 600 out.qcow2
        setfacl -m "u:$stranger:r" out.qcow2
        addcow import -q -i in.raw out.qcow2 in.add-cow
        expect_equal 600 "$(stat -c %a in.raw)" "the mode of what is imported"
    else
        echo "not tried: import and export (no qemu-img, or a sanitizer)"
    fi

    # Names that only the world outside of a user name space knows.
    if [ "$(id -u)" -eq 0 ] && unshare -Ur true 2>/dev/null; then
        over x
        setfacl -m "u:$stranger:rw" x.add-cow
        for verb in "rebase -b two.img -F raw" "upgrade --subclusters=off" commit "commit --dry-run"; do
            # shellcheck disable=SC2086
            untouched "x.add-cow: has an access control list with users or groups that are not known here" \
                unshare -Ur "$ADDCOW_RUN" addcow $verb x.add-cow
        done
    else
        echo "not tried: a user name space (none can be made here, or not root)"
    fi
fi

# Other attributes.
if ! python3 -c 'import os; os.setxattr("probe", "user.note", b"5")' 2>/dev/null; then
    echo "not tried: extended attributes (no python3, or the file system of $PWD has none)"
else
    for verb in $replacers; do
        prepare "$verb"
        chmod 640 x.add-cow
        python3 -c 'import os; os.setxattr("x.add-cow", "user.note", b"kept")'
        "replace_$verb" x.add-cow
        expect_equal kept "$(python3 -c 'import os; print(os.getxattr("x.add-cow", "user.note").decode())')" \
            "an attribute of x.add-cow after $verb"
        expect_equal 640 "$(stat -c %a x.add-cow)" "the mode of x.add-cow after $verb"
    done
fi
if can_mount; then
    # A file system that has neither.
    mkdir without
    unshare -m bash -e -c '
        mount -t ramfs none without
        cp one.img without
        cd without
        if python3 -c "import os; os.setxattr(\"one.img\", \"user.note\", b\"5\")" 2>/dev/null; then
            echo "ramfs has attributes"
            exit 1
        fi
        "$0" addcow create -q -b one.img -F raw -i i.raw i.add-cow
        "$0" addcow upgrade -q i.add-cow
        "$0" addcow commit -q i.add-cow' "$ADDCOW_RUN" || fail "a file system without attributes"
else
    echo "not tried: a file system without attributes (nothing can be mounted here)"
fi

# Names for which the header has no room, known before a cluster is copied.
over x
long="$(printf './%.0s' $(seq 2010))two.img"
untouched "room for" addcow rebase -b "$long" -F raw x.add-cow

if [ "$(id -u)" -eq 0 ]; then
    # as_stranger COMMAND...: whom the files do not belong to.
    as_stranger() { setpriv --reuid=$stranger --regid=$stranger --clear-groups "$@"; }
    mkdir theirs
    over x
    mv x.add-cow x.raw theirs
    cp -p one.img two.img theirs
    chmod 777 theirs
    chmod 666 theirs/*
    for verb in "rebase -b two.img -F raw" "rebase -u -b two.img -F raw" "upgrade --subclusters=off" upgrade \
        "commit --dry-run" commit; do
        # shellcheck disable=SC2086
        untouched "x.add-cow: belongs to another user or group" as_stranger "$ADDCOW_RUN" addcow $verb theirs/x.add-cow
    done
    chmod 755 theirs
    chown $stranger:$stranger theirs/x.add-cow
    for verb in "rebase -b two.img -F raw" "rebase -u -b two.img -F raw" "upgrade --subclusters=off" upgrade \
        "commit --dry-run" commit; do
        # shellcheck disable=SC2086
        untouched "x.add-cow: cannot be replaced by a new file in its directory: Permission denied" \
            as_stranger "$ADDCOW_RUN" addcow $verb theirs/x.add-cow
    done
else
    echo "not tried: the files of another user (needs root)"
fi

# A mount point of its own, as a single file of a container is.
if can_mount; then
    over x
    mkdir mounted
    touch mounted/x.add-cow
    cp -p x.raw one.img two.img mounted
    mount_file() {
        unshare -m bash -e -c 'mount --bind x.add-cow mounted/x.add-cow; exec "$@"' bash "$ADDCOW_RUN" addcow "$@"
    }
    for verb in "rebase -b two.img -F raw" "rebase -u -b two.img -F raw" "upgrade --subclusters=off" upgrade \
        "commit --dry-run" "commit --wait" "create --force --discard -b one.img -F raw -i new.raw"; do
        # shellcheck disable=SC2086
        untouched "mounted/x.add-cow: is a mount point itself.*(run this where the file lies" \
            mount_file $verb mounted/x.add-cow
    done
else
    echo "not tried: a file that is a mount point (nothing can be mounted here)"
fi
