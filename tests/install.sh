#!/bin/sh
# Install SLURM for tests/slurm, Chromium for tests/report, sshd and rsync for tests/hosts, strace for
# tests/journeys/test_footprint.py, where apt can. Elsewhere say so and go on: without them those tests are skipped.
PATH=$PATH:/usr/sbin
packages=
if ! { command -v slurmctld && command -v slurmd && command -v sbatch; } >/dev/null; then
    packages="slurmctld slurmd slurm-client"
fi
command -v chromium >/dev/null || packages="$packages chromium"
command -v sshd >/dev/null || packages="$packages openssh-server"
command -v ssh >/dev/null || packages="$packages openssh-client"
command -v rsync >/dev/null || packages="$packages rsync"
command -v strace >/dev/null || packages="$packages strace"
[ -n "$packages" ] || exit 0

as_root=
[ "$(id -u)" = 0 ] || as_root="sudo -n"
if command -v apt-get >/dev/null && $as_root true 2>/dev/null; then
    # shellcheck disable=SC2086  # several words
    $as_root apt-get update -qq >/dev/null &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null &&
        exit 0
fi
echo "Not here, and not to be installed from here, so their tests are skipped. By hand: apt-get install $packages"
