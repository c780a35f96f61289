#!/usr/bin/env bash
# Turns this process's namespaces into a board and becomes its SSH server. Run by virtual_board.py:
#   unshare --mount --uts --pid --fork virtual_board.sh WORK SSHD
# WORK holds what the board has of its own; everything else is the host's and is only read.
set -e
work=$1 sshd=$2
mount --make-rprivate /
cat "$work/hostname" > /proc/sys/kernel/hostname
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd /run/board/work /run/board/proc /run/board/shown
mount --bind "$work" /run/board/work
work=/run/board/work

# The folders that hold Python and its packages, also where only root may enter their parents.
number=0
while read -r folder; do
    mkdir "/run/board/shown/$number"
    mount --bind "$folder" "/run/board/shown/$number"
    number=$((number + 1))
done < "$work/shown"
while read -r folder; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done < "$work/hidden"
chmod 1777 /tmp
number=0
while read -r folder; do
    mkdir -p "$folder"
    mount --bind "/run/board/shown/$number" "$folder"
    number=$((number + 1))
done < "$work/shown"
mkdir /home/jetson
mount --bind "$work/home" /home/jetson

for folder in etc var usr/local; do
    layers="lowerdir=/$folder,upperdir=$work/own/$folder,workdir=$work/scratch/$folder"
    mount -t overlay -o "$layers" overlay "/$folder"
done

mount --bind "$work/site" "$(cat "$work/packages")"

# Of /proc, what the board tells otherwise; the rest leads to the kernel's own.
mount -t proc proc /run/board/proc
for name in boot_id osrelease; do
    real=/run/board/proc/sys/kernel/osrelease
    [ $name = boot_id ] && real=/run/board/proc/sys/kernel/random/boot_id
    mount --bind "$work/kernel/$name" "$real"
done
for entry in /run/board/proc/[!0-9]*; do
    [ -e "$work/proc/${entry##*/}" ] || ln -sfn "$entry" "$work/proc/${entry##*/}"
done
mount --bind "$work/proc" /proc
mount --bind "$work/sys" /sys
exec "$sshd" -D -e -f /etc/ssh/sshd_config
