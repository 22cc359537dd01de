#!/usr/bin/env bash
# Proves that a clone works on a machine that has nothing: makes a minimal Debian 12 system in a folder
# with debootstrap (needs root), clones HEAD into it and runs there, as a user would, quickstart.sh twice
# and test.sh once. scripts/fresh_machine.sh [FOLDER]; the folder is kept and reused as the base.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
base=${1:-/var/tmp/attn-fresh}
[ "$(id -u)" -eq 0 ] || { echo "fresh_machine.sh needs root for debootstrap and chroot" >&2; exit 2; }
command -v debootstrap >/dev/null || { echo "apt-get install debootstrap" >&2; exit 2; }
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 'debian/*$')}
[ -e "$base/base/etc/debian_version" ] ||
  debootstrap --variant=minbase --include=ca-certificates,git bookworm "$base/base" "$mirror"
system=$base/system
rm -rf "$system"
cp -a "$base/base" "$system"
cp /etc/resolv.conf "$system/etc/resolv.conf"
for proxy in /etc/apt/apt.conf.d/*; do
  if grep -qiE 'proxy|verify' "$proxy"; then cp "$proxy" "$system/etc/apt/apt.conf.d/"; fi
done
git clone -q "$ROOT" "$system/root/attn-compare"
mount --bind /proc "$system/proc"
trap 'umount "$system/proc"' EXIT
inside() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 ${http_proxy:+http_proxy=$http_proxy} \
  chroot "$system" bash -c "cd /root/attn-compare && $1"; }
time inside scripts/quickstart.sh
time inside scripts/quickstart.sh
time inside scripts/test.sh
