#!/usr/bin/env bash
# An arm64 root under qemu-user with an SSH server on the loopback, for a look at the agent on another
# architecture: install and check work there (300 MB). Timings mean nothing. Needs root on Debian. Ends with
# its process; a second start uses the same root.
#
#   tests/support/arm64_board.sh FOLDER PORT
#   fusion-nas device add arm64 ssh://root@127.0.0.1:PORT --key FOLDER/key
#   fusion-nas device trust arm64
#   fusion-nas device install arm64
#   fusion-nas device check arm64
set -euo pipefail
folder=$1 port=$2 root=$1/root
formats=/proc/sys/fs/binfmt_misc

apt-get install -y -qq qemu-user-static debootstrap openssh-client >/dev/null
[ -e "$formats/register" ] || mount -t binfmt_misc binfmt_misc "$formats"
if [ ! -e "$formats/qemu-aarch64" ]; then
    header='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    echo ":qemu-aarch64:M::$header:$mask:/usr/bin/qemu-aarch64-static:OCF" >"$formats/register"
fi
mkdir -p "$folder"
if [ ! -e "$folder/complete" ]; then
    debootstrap --arch=arm64 --variant=minbase --include=python3,openssh-server bookworm "$root"
    ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
    install -d -m 700 "$root/root/.ssh"
    install -m 600 "$folder/key.pub" "$root/root/.ssh/authorized_keys"
    touch "$folder/complete"
fi
mkdir -p "$root/run/sshd"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
trap 'umount "$root/proc"' EXIT
chroot "$root" /usr/sbin/sshd -D -e -p "$port" -o ListenAddress=127.0.0.1 -o UsePAM=no
